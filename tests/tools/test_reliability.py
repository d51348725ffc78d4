"""tools/run_reliability.py: the table, what is repeated, planted faults, and quick cases."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from itertools import cycle
from pathlib import Path

import pytest
from scripts import ROOT, tool

sys.path.insert(0, str(ROOT / "tools"))
from reliability import flips, running  # noqa: E402
from reliability.cases import BY_NAME, CASES, TESTS, Case, choose  # noqa: E402
from reliability.judging import differences, has_traceback, unreadable  # noqa: E402
from reliability.kills import MOMENTS, WRITES, at_write, kill_itself, killed_run  # noqa: E402
from reliability.nodes import TITLE, figures  # noqa: E402
from reliability.processes import Command, around  # noqa: E402
from reliability.running import Settings, run, versions  # noqa: E402
from reliability.work import NotRunError, Work  # noqa: E402

from swinv2_backbone.d2.engine import checkpoint  # noqa: E402

run_reliability = tool("run_reliability")
SHORT = {"iterations": 4, "evaluate": 0}


@pytest.fixture
def page(tmp_path, monkeypatch) -> Path:
    """Write the table into a copy of docs/RELIABILITY.md."""
    found = tmp_path / "RELIABILITY.md"
    found.write_text((ROOT / "docs/RELIABILITY.md").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(run_reliability, "PAGE", found)
    return found


def result(name: str, **values) -> dict:
    """Return what a case leaves that was run 1,880 times."""
    found = {"case": name, "mode": "full", "times": 1880, "outcome": "all refused", "lost": []}
    return found | {"not_run": "", "seconds": 12.3, "versions": versions()} | values


# ---- The table


def test_the_table_has_what_was_lost_and_what_was_not_run(page, tmp_path, capsys):
    done = [
        result("header-flips"),
        result("clock", mode="short", lost=["one", "another"]),
        result("disk-full", times=0, outcome="", not_run="no disk can be mounted"),
    ]
    for one in done:
        (tmp_path / f"{one['case']}.json").write_text(json.dumps(one))
    with pytest.raises(SystemExit) as ended:
        run_reliability.main(["--report", "--output", str(tmp_path)])
    assert ended.value.code == 1  # something was lost
    text = page.read_text(encoding="utf-8")
    assert (
        "| `header-flips` | one flipped bit in a safetensors header | 1,880 | all refused " in text
    )
    assert "| `clock` | the clock jumps | 1,880 | all refused (short form) | 2 | 12 |" in text
    assert "| 0 | not run: no disk can be mounted | - | - |" in text
    assert "In all 3,760 times, 2 lost." in text and "PyTorch" in text
    run_reliability.main(["--report", "--output", str(tmp_path), "--cases", "header-flips"])


def test_all_reliability_tests_are_cases(capsys):
    marked = {
        str(path.relative_to(ROOT / "tests"))
        for path in (ROOT / "tests").rglob("test_*.py")
        if path != Path(__file__) and "pytest.mark.reliability" in path.read_text(encoding="utf-8")
    }
    assert marked == {file for file, _ in TESTS.values()}
    run_reliability.main(["--list"])
    assert len(capsys.readouterr().out.splitlines()) == len(CASES) == len(BY_NAME)
    with pytest.raises(ValueError, match="no case sok: choose from kills-yaml, "):
        choose(["sok"])


def test_the_figures_of_tests_are_read():
    text = f"R0: before\n==== {TITLE} ====\nR5: 3 of 4 refused\nR1: all\n==== 5 passed ====\n"
    assert figures(text) == ["R5: 3 of 4 refused", "R1: all"]


# ---- Results are kept


@pytest.fixture
def counted() -> tuple[Case, list[str]]:
    """Return a case and the list of its runs; a reason in it is why it is not run."""
    runs: list[str] = []

    def work(own: Work) -> str:
        runs.append("full" if own.full else "short")
        own.times = 3
        own.expect(len(runs) > 1, "the first run loses something")
        return "3 tries"

    return Case("counted", "nothing", work), runs


def test_a_case_that_is_done_is_not_run_again(counted, tmp_path):
    case, runs = counted
    settings = Settings(tmp_path)
    assert run(case, settings)["lost"] and (tmp_path / "counted").is_dir()
    assert not run(case, settings)["lost"] and not (tmp_path / "counted").exists()
    assert run(case, settings)["outcome"] == "3 tries" and len(runs) == 2
    run(case, Settings(tmp_path, full=True))
    run(case, settings)  # the long form counts for the short one
    assert runs == ["short", "short", "full"]
    run(case, Settings(tmp_path, anew=True))
    assert len(runs) == 4


def test_a_result_of_other_versions_is_replaced(counted, tmp_path, monkeypatch):
    case, runs = counted
    for _ in range(2):
        run(case, Settings(tmp_path))
    monkeypatch.setattr(running, "versions", lambda: {"torch": "9"})
    assert run(case, Settings(tmp_path))["versions"] == {"torch": "9"} and len(runs) == 3


def test_a_case_that_fails_is_lost_and_one_that_cannot_run_is_not(tmp_path):
    def fails(work: Work) -> str:
        raise AssertionError("no such file")

    def cannot(work: Work) -> str:
        raise NotRunError("no disk")

    lost = run(Case("fails", "", fails), Settings(tmp_path))["lost"]
    assert lost == ["the case itself failed: AssertionError: no such file"]
    found = run(Case("cannot", "", cannot), Settings(tmp_path))
    assert (found["lost"], found["not_run"]) == ([], "no disk")


# ---- Planted faults


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Work:
    """Return a work with an uninterrupted training."""
    work = Work(tmp_path_factory.mktemp("work"))
    work.reference(iterations=4)
    return work


def test_a_training_that_saves_nothing_is_lost(trained, monkeypatch):
    def saves_nothing() -> None:
        around(checkpoint, "write_file", lambda *_, **__: None)

    work = Work(trained.folder / "nothing")
    work.folder.mkdir()
    moments = cycle([("/save model_0000002", 1, 0.01)])
    killed_run(work, "run", "yaml", moments, 1, SHORT, saves_nothing)
    assert any("last_checkpoint: names 'model_0000002.pth'" in text for text in work.lost)
    command = work.train("other", prepare=saves_nothing, **SHORT)
    work.ends_equal(command, "other")
    assert work.lost[-1] == "other: differs from the uninterrupted training: no model_final.pth"


def test_a_save_that_is_not_resumed_is_lost(trained):
    def forgets() -> None:
        around(checkpoint, "last_good_checkpoint", lambda *_: (None, None))

    work = Work(trained.folder / "forgotten")
    work.folder.mkdir()
    moments = cycle([("/save model_0000002", 1, 0.01), ("step", 1, 0.01)])
    killed_run(work, "run", "yaml", moments, 2, SHORT, forgets)
    assert "run: iteration 2 was saved, but resumed from 0" in work.lost


def test_a_command_that_hangs_is_killed_and_shows_where(tmp_path):
    command = Command([], tmp_path / "console.txt", main=lambda _: time.sleep(60))
    before = len(os.listdir("/proc/self/fd"))
    assert command.wait(timeout=0.5) == -signal.SIGABRT and command.hung
    assert len(os.listdir("/proc/self/fd")) == before - 1  # later commands would inherit the pipe
    assert "Fatal Python error" in command.text


def test_differences_and_damaged_files_are_named(tmp_path):
    assert list(differences({"a": [1, {"b": 2}]}, {"a": [1, {"b": 3}]})) == [".a.1.b"]
    (tmp_path / "config.yaml").touch()
    (tmp_path / "metrics.json").write_text('{}\n{"cut": \n{}\n{"torn')
    (tmp_path / "model_final.pth").write_bytes(b"PK")
    found = [text.partition(":")[0] for text in unreadable(tmp_path)]
    assert found == ["config.yaml", "metrics.json", "model_final.pth"]
    (tmp_path / "metrics.json").write_text('{}\n{"torn')
    assert len(unreadable(tmp_path)) == 2
    assert has_traceback("--- Logging error ---") and not has_traceback("OSError: full")


# ---- Commands and quick cases


def test_a_forked_command_is_as_a_fresh_one(trained):
    forked = trained.train("forked", **SHORT)
    fresh = trained.fresh("fresh", **SHORT)
    trained.ends_equal(fresh, "fresh", reference=trained.folder / "forked")
    assert (forked.wait(), fresh.code) == (0, 0) and trained.lost == []
    names = [
        {path.name.partition(".15")[0].partition(".17")[0] for path in folder.iterdir()}
        for folder in (trained.folder / "forked", trained.folder / "fresh")
    ]
    assert {"config.yaml", "metrics.json", "model_final.pth", "log.txt"} <= names[0] & names[1]
    failed = trained.train("failed", iterations=0)
    assert failed.wait() == 1 and "MAX_ITER" in failed.last and not has_traceback(failed.text)


@pytest.mark.parametrize("moment", WRITES[1:3])
def test_a_kill_in_a_write_happens_in_that_write(trained, moment):
    name = f"killed_{moment}"
    prepare = at_write("model_0000002", moment, kill_itself)
    command = trained.train(name, prepare=prepare, **SHORT)
    assert command.wait() == -signal.SIGKILL
    command.end()
    (partial,) = (trained.folder / name).glob("*.partial")
    assert partial.name.startswith("model_0000002.pth.")


def test_killed_trainings_end_equal(trained):
    moments = cycle([MOMENTS[0], ("step", 2, 0.05)])
    kills = killed_run(trained, "killed", "yaml", moments, 2, SHORT | {"workers": 2})
    assert kills.total() == 2 and trained.lost == []


def test_quick_cases_run_from_the_command_line(page, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(flips, "FLIPS", 40)
    monkeypatch.setattr(flips, "DAMAGED", 24)
    names = ["header-flips", "damaged-checkpoints"]
    run_reliability.main(["--output", str(tmp_path / "out"), "--cases", *names])
    assert "| `header-flips` |" in page.read_text(encoding="utf-8")
    assert sorted(os.listdir(tmp_path / "out")) == [f"{name}.json" for name in sorted(names)]
    run_reliability.main(["--output", str(tmp_path / "out"), "--cases", *names])
    assert "header-flips: done" in capsys.readouterr().out
