"""Running a row: the product's own training or classification, and the entry for the tables."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import swinv2_backbone
from published.data import check, full_sizes
from published.rows import METRICS, Row
from swinv2_backbone.build import build_classifier
from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.cli.arguments import config_changes
from swinv2_backbone.cli.classification import accuracy
from swinv2_backbone.cli.classify import parser as classify_parser
from swinv2_backbone.cli.train_net import FINAL
from swinv2_backbone.d2.data.datasets.ade20k import prepare
from swinv2_backbone.d2.engine.metrics import read_lines
from swinv2_backbone.d2.engine.training import AUGMENTED, INFERENCE
from swinv2_backbone.d2.evaluation.results import RESULTS
from swinv2_backbone.variants import VARIANTS

ENTRY = "published.json"  # in the folder of a row that is done
REPOSITORY = Path(__file__).parents[2]
Entry = dict[str, Any]


@dataclass(frozen=True)
class Settings:
    """What the command line says.

    Attributes:
        suite: "coco", "ade20k" or "imagenet".
        data: Folder of the sets.
        output: Folder of the rows' folders.
        gpus: Processes of a training, one for each GPU.
        changes: ``KEY VALUE ...`` for every training.
    """

    suite: str
    data: Path
    output: Path
    gpus: int
    changes: tuple[str, ...] = ()

    @property
    def on_cpu(self) -> bool:
        return dict(zip(self.changes[::2], self.changes[1::2])).get("MODEL.DEVICE") == "cpu"

    @property
    def trains(self) -> bool:
        return self.suite != "imagenet"

    def check(self) -> None:
        """Raise ValueError for settings that contradict each other; no data is read."""
        if self.gpus < 1:
            raise ValueError(f"--num-gpus must be 1 or more, got {self.gpus}")
        if self.trains:
            changed = config_changes("", self.changes)
            if "OUTPUT_DIR" in changed:
                raise ValueError(f"OUTPUT_DIR {changed['OUTPUT_DIR']}: --output gives the folder")
        elif self.changes or self.gpus > 1:
            raise ValueError(
                "--suite imagenet trains nothing and uses one GPU: omit "
                f"{' '.join(self.changes) or f'--num-gpus {self.gpus}'}"
            )

    def check_gpus(self) -> None:
        """Raise ValueError if a training would not find its GPUs."""
        found = torch.cuda.device_count()
        if self.trains and not self.on_cpu and self.gpus > found:
            raise ValueError(
                f"--num-gpus {self.gpus}, but PyTorch sees {found} GPUs: give fewer, or try the "
                "command on the CPU with --num-gpus 1 ... MODEL.DEVICE cpu"
            )


def is_exact(settings: Settings, images: dict[str, int]) -> bool:
    """Return True for the recipes as they are on the published sets."""
    return not settings.changes and images == full_sizes(settings.suite)


def folder_of(row: Row, settings: Settings, images: dict[str, int]) -> Path:
    """Return the folder of a run.

    With changes or other data it is another folder, so that the recipe never continues a trial.
    """
    if is_exact(settings, images):
        return settings.output / row.name
    what = json.dumps([settings.changes, images])
    return settings.output / f"{row.name}+{hashlib.sha256(what.encode()).hexdigest()[:8]}"


def command(row: Row, settings: Settings, folder: Path) -> list[str]:
    """Return the command of a row's training; run again, it continues."""
    return [
        *(sys.executable, "-m", "swinv2_backbone", "train", row.recipe, "--resume"),
        *("--num-gpus", str(settings.gpus), *row.changes, *settings.changes),
        *("OUTPUT_DIR", str(folder)),
    ]


def prepare_data(settings: Settings) -> dict[str, int]:
    """Check the sets and write ADE20K's prepared labels; return the number of images by split."""
    images = check(settings.suite, settings.data)
    if settings.suite == "ade20k":
        prepare(settings.data / "ADEChallengeData2016")
    return images


def run(row: Row, settings: Settings, images: dict[str, int]) -> Entry:
    """Run a row unless its entry exists; return the entry.

    Raises:
        ChildProcessError: A training failed or was stopped.
    """
    folder = folder_of(row, settings, images)
    if (folder / ENTRY).is_file():
        print(f"{row.name}: done, in {folder}", flush=True)
        return read_json(folder / ENTRY)
    print(f"{row.name}: running in {folder}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    measured = _train(row, settings, folder) if settings.trains else _classify(row, settings)
    entry = {
        **{"row": row.name, "suite": settings.suite, "changes": shlex.join(settings.changes)},
        **{"images": images, **measured, "version": swinv2_backbone.__version__},
        **{"commit": _commit(), "date": datetime.now(timezone.utc).date().isoformat()},
    }
    write_text(folder / ENTRY, json.dumps(entry, indent=1) + "\n")
    return entry


def finished(rows: tuple[Row, ...], output: Path) -> dict[str, Entry]:
    """Return the entries of all runs of some rows by the name of their folder."""
    names = {row.name for row in rows}
    entries = {path.parent.name: read_json(path) for path in sorted(output.glob(f"*/{ENTRY}"))}
    return {name: entry for name, entry in entries.items() if entry["row"] in names}


def read_json(path: Path) -> Entry:
    return json.loads(path.read_text(encoding="utf-8"))


def _train(row: Row, settings: Settings, folder: Path) -> Entry:
    datasets = {"DETECTRON2_DATASETS": str(settings.data.absolute())}
    code = _wait(subprocess.Popen(command(row, settings, folder), env={**os.environ, **datasets}))
    if code or not (folder / FINAL).is_file():
        raise ChildProcessError(
            f"{row.name}: the training ended before its last iteration (exit code {code}); see "
            f"{folder / 'log.txt'}, and run the same command again to continue"
        )
    suffix = AUGMENTED if row.augmented else ""
    results = read_json(folder / f"{INFERENCE}{suffix}" / RESULTS)
    places = {title: METRICS[title] for title in row.metrics}
    metrics = {title: results[f"{task}{suffix}"][key] for title, (task, key) in places.items()}
    gpu = None if settings.on_cpu else torch.cuda.get_device_name(0)
    gpus = 0 if settings.on_cpu else settings.gpus
    return {"metrics": metrics, "gpus": gpus, "gpu": gpu, "hours": _hours(folder)}


def _wait(training: subprocess.Popen) -> int:
    """Return the exit code of a training, which saves a checkpoint when it is told to stop.

    The terminal sends Ctrl-C to the training too; SIGTERM is passed on.
    """
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(
            signal.SIGTERM, lambda number, _: training.send_signal(number)
        ),
    }
    try:
        return training.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _hours(folder: Path) -> float:
    """Return the hours of all iterations, also of earlier sessions, without evaluations."""
    seconds, last = 0.0, -1
    for _, content in read_lines(folder / "metrics.json"):
        if content and "time" in content:
            seconds += content["time"] * max(content["iteration"] - last, 0)
            last = content["iteration"]
    return round(seconds / 3600, 4)


def _classify(row: Row, settings: Settings) -> Entry:
    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    begun = time.monotonic()
    model = build_classifier(row.recipe, weights="mmpretrain").eval().to(device)
    found = accuracy(
        model,
        settings.data / "imagenet" / "val",
        VARIANTS[row.recipe].image_size,
        batch_size=classify_parser().get_default("batch_size"),
        workers=classify_parser().get_default("workers"),
        device=device,
    )
    return {
        "metrics": {"top-1": round(found.top1, 3), "top-5": round(found.top5, 3)},
        "gpus": int(on_gpu),
        "gpu": torch.cuda.get_device_name(0) if on_gpu else None,
        "hours": round((time.monotonic() - begun) / 3600, 4),
    }


def _commit() -> str | None:
    """Return the commit of this repository, "-dirty" if code differs from it; None without one."""
    commit = _git("rev-parse", "HEAD")
    changed = commit and _git("status", "--porcelain", "--", "swinv2_backbone", "configs", "tools")
    return f"{commit}-dirty" if changed else commit


def _git(*arguments: str) -> str | None:
    try:
        found = subprocess.run(
            ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
