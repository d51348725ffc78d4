"""Images that change after they were checked, few file descriptors, and long trainings."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from reliability.disks import check_sentence
from reliability.processes import Prepare, around
from reliability.ranks import RARELY, TWO
from reliability.scene import write_image
from reliability.work import Work
from swinv2_backbone.cli import train_net
from swinv2_backbone.d2.engine.step import TrainingStep

CHANGES: dict[str, Callable[[Path], object]] = {
    "another size": lambda path: write_image(path, 50, 70, 0),
    "no image": lambda path: path.write_text("no image", encoding="utf-8"),
    "removed": Path.unlink,
}


def image_replaced(work: Work) -> str:
    """Replace an image after the check of the data: it is named, and skipped if that is allowed."""
    trained, tested = work.scene.images[-1], work.scene.images[0]
    for title, change in CHANGES.items():
        for image, allowed in ((trained, 0.5), (trained, 0.0), (tested, 0.5)):
            name = f"{title.replace(' ', '_')}_{image.stem}_{allowed}"
            whole = image.read_bytes()
            prepare = _after_check(partial(change, image))
            command = work.train(name, prepare=prepare, broken=allowed, workers=2)
            code = command.wait()
            image.write_bytes(whole)
            check_sentence(work, command, name)
            work.expect(str(image) in command.text, f"{name}: the image is not named")
            ends_well = image is trained and bool(allowed)
            work.expect((code == 0) == ends_well, f"{name}: ends with {code}: {command.last!r}")
            work.times += 1
    return f"{work.times} images replaced, named; skipped where allowed"


def _after_check(change: Callable[[], object]) -> Prepare:
    def set_up(original: Callable, *args: Any) -> None:
        change()
        original(*args)

    return lambda: around(train_net, "set_up", set_up)


def few_descriptors(work: Work) -> str:
    """Train with at most 256 open files, with four workers and with two processes."""
    limit = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (256, 256))
    work.ends_equal(work.train("workers", prepare=limit, workers=4), "workers", workers=4)
    whole = work.fresh("whole_two", *TWO)
    assert whole.wait() == 0, whole.text
    command = work.fresh("two", *TWO, prepare=limit, **RARELY)
    work.ends_equal(command, "two", reference=work.folder / "whole_two")
    work.times = 2
    return "256 descriptors: 4 workers, and 2 processes with 2 workers each, bitwise equal"


# ---- A long training

EVERY = 10  # iterations between two measurements
FIGURES = ("memory", "descriptors", "threads", "seconds")


def soak(work: Work) -> str:
    """Kill a long training again and again: its resources and its speed stay."""
    iterations, seconds = (10_000, 60.0) if work.full else (1_000, 20.0)
    changes: dict[str, Any] = {"iterations": iterations, "period": 50, "kept": 2}
    changes |= {"evaluate": iterations // 5, "workers": 2}
    work.train("whole", **changes).wait(3600)
    segments: list[Path] = []
    while True:
        segments.append(work.folder / f"segment{len(segments)}.jsonl")
        prepare = partial(_measure, segments[-1])
        command = work.train("killed", "yaml", "--resume", prepare=prepare, **changes)
        command.wait_until(seconds)
        if not command.running:
            break
        command.end()
        work.times += 1
    work.ends_equal(command, "killed", reference=work.folder / "whole")
    return _compare(work, [found for path in segments if len(found := _figures(path)) > 2])


def _measure(file: Path) -> None:
    """Write figures of this process every few iterations."""
    last = time.monotonic()

    def step(original: Callable, own: TrainingStep) -> None:
        nonlocal last
        original(own)
        if own.iter % EVERY == 0:
            now = time.monotonic()
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
            counts = [len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task")]
            with file.open("a", encoding="utf-8") as out:
                print(json.dumps([pages * 4096 / 1e6, *counts, (now - last) / EVERY]), file=out)
            last = now

    around(TrainingStep, "run_step", step)


def _figures(file: Path) -> dict[str, float]:
    """Return the median figures of a segment after its start, and its least time.

    On a busy machine the median of the times is that of the other processes' load.
    """
    lines = file.read_text(encoding="utf-8").split("\n")[2:-1] if file.exists() else []
    rows = [json.loads(line) for line in lines]
    if not rows:
        return {}
    found = dict(zip(FIGURES, map(median, zip(*rows))))
    return found | {"seconds": min(row[-1] for row in rows)}


def _compare(work: Work, found: list[dict[str, float]]) -> str:
    """Compare the first and the last segment."""
    first, last = found[0], found[-1]
    growth = last["memory"] / first["memory"] - 1
    slower = last["seconds"] / first["seconds"] - 1
    work.expect(growth < 0.05, f"memory {first['memory']:.0f} MB, then {last['memory']:.0f} MB")
    for kind in ("descriptors", "threads"):
        work.expect(last[kind] <= first[kind], f"{kind}: {first[kind]:.0f}, then {last[kind]:.0f}")
    work.expect(slower < 0.5, f"{first['seconds']:.3f} s an iteration, then {last['seconds']:.3f}")
    return (
        f"{work.times} kills; first and last segment: {first['memory']:.0f} and "
        f"{last['memory']:.0f} MB ({growth:+.1%}), {first['descriptors']:.0f} and "
        f"{last['descriptors']:.0f} descriptors, {first['threads']:.0f} and "
        f"{last['threads']:.0f} threads, {1000 * first['seconds']:.0f} and "
        f"{1000 * last['seconds']:.0f} ms an iteration; bitwise equal"
    )
