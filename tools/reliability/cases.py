"""The table of all cases, and how one is run."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from reliability.work import Work

Run = Callable[[Work], str]


@dataclass(frozen=True)
class Case:
    """A failure, caused many times.

    Attributes:
        name: Name on the command line.
        failure: The failure or load, for the table.
        run: Causes it in a folder; returns the outcome in words, and notes what was lost.
    """

    name: str
    failure: str
    run: Run


def _lazy(place: str, *args: str) -> Run:
    """Return a function that is imported when it is called: an import takes seconds."""
    module, _, name = place.rpartition(".")

    def run(work: Work) -> str:
        return getattr(importlib.import_module(f"reliability.{module}"), name)(work, *args)

    return run


def _case(name: str, failure: str, place: str, *args: str) -> Case:
    return Case(name, failure, _lazy(place, *args))


TESTS = {  # name -> file of tests with the mark `reliability`, and the rows that they cover
    "durable": ("checkpoints/test_durable.py", "R1, R4, R5"),
    "damage": ("checkpoints/test_damage.py", "weights that state no digest"),
    "resume": ("d2/engine/test_resume.py", "R2"),
    "properties": ("core/test_properties.py", "R9, R10"),
    "soak": ("d2/engine/test_soak.py", "R18"),
    "shards": ("d2/inference/scale/test_kills.py", "R19"),
}
CASES = (
    _case("kills-yaml", "kill -9 at any moment, resumed", "kills.kills_at_random_moments", "yaml"),
    _case("kills-lazy", "the same, LazyConfig", "kills.kills_at_random_moments", "lazy"),
    _case("config-kills", "kill -9 while config.yaml is rewritten", "kills.config_kills"),
    _case("worker-killed-in-save", "a worker is killed in a save", "kills.worker_killed_in_save"),
    _case("two-trainings", "two trainings in one folder", "pairs.two_trainings"),
    _case("divergence", "absurd learning rates; NaN in checkpoints", "diverging.divergence"),
    _case("tag-flips", "one flipped bit in last_checkpoint", "flips.tag_flips"),
    _case("header-flips", "one flipped bit in a safetensors header", "flips.header_flips"),
    _case("damaged-checkpoints", "damaged .pth to resume from", "flips.damaged_checkpoints"),
    _case("damaged-others", "damaged other files", "flips.damaged_others"),
    _case("disk-full", "a disk that is full, or fills up", "disks.disk_full"),
    _case("read-only", "a folder that becomes read-only", "disks.read_only"),
    _case("folder-gone", "the folder is moved away or removed", "disks.folder_gone"),
    _case("signals-at-start", "SIGINT, SIGTERM at start-up", "signalled.at_start_up"),
    _case("signals-twice", "Ctrl-C twice", "signalled.second_one"),
    _case("stopped", "SIGSTOP of a process, a worker, all", "ranks.stopped"),
    _case("rank-killed-in-save", "one of two processes killed", "ranks.rank_killed_in_save"),
    _case("clock", "the clock jumps", "clocks.jumps"),
    _case("network-folder", "kill -9 on a slow network folder", "networks.network_folder"),
    _case("image-replaced", "an image changes after the check", "limits.image_replaced"),
    _case("fd-limit", "few file descriptors", "limits.few_descriptors"),
    _case("soak", "a long training, killed regularly", "limits.soak"),
    *(
        _case(f"tests-{name}", what, "nodes.run_tests", file)
        for name, (file, what) in TESTS.items()
    ),
)
BY_NAME = {case.name: case for case in CASES}


def choose(names: list[str] | None) -> tuple[Case, ...]:
    """Return the cases of some names, or all.

    Raises:
        ValueError: There is no case of a name.
    """
    unknown = [name for name in names or () if name not in BY_NAME]
    if unknown:
        raise ValueError(f"no case {', '.join(unknown)}: choose from {', '.join(BY_NAME)}")
    return tuple(BY_NAME[name] for name in names or BY_NAME)
