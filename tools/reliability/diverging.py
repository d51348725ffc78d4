"""Trainings that diverge, and checkpoints whose values are not finite."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from reliability.disks import check_sentence
from reliability.judging import has_traceback, started_from, unreadable
from reliability.processes import Command
from reliability.scene import DIALECTS
from reliability.work import Work, stated
from swinv2_backbone.checkpoints.files import read_file, write_file
from swinv2_backbone.d2.engine.last_checkpoint import tag_checkpoint

RATES = ("1e12", "1e20", "1e400")
SKIPS = (0, 3)


def divergence(work: Work) -> str:
    """Train at absurd rates, and resume from values that are not finite."""
    kinds = Counter[str]()
    for dialect in DIALECTS:
        for rate in RATES:
            for skips in SKIPS:
                kinds[_at_rate(work, dialect, rate, skips)] += 1
        for part in ("model", "average", "optimizer"):
            _resume_from_nan(work, dialect, part)
            kinds["NaN checkpoints passed over"] += 1
    work.times = kinds.total()
    return stated(work.times, "trainings", kinds)


def _at_rate(work: Work, dialect: str, rate: str, skips: int) -> str:
    name = f"{dialect}_{rate}_{skips}"
    command = work.train(name, dialect, rate=rate, skips=skips, period=1)
    code = command.wait()
    folder = work.folder / name
    if not list(folder.glob("nonfinite_*.json")):  # the rate was refused
        check_sentence(work, command, name)
        work.expect(code == 1 and not list(folder.glob("*.pth")), f"{name}: {command.last}")
        return "refused by the config"
    work.expect(code == 1 and "not finite" in command.text, f"{name}: ends with {code}")
    _check_records(work, command, folder, skips)
    for fault in unreadable(folder):
        work.expect(False, f"{name}: {fault}")
    for path in folder.glob("*.pth"):
        content = read_file(path, extras=False).value
        work.expect(all_finite(content), f"{name}: {path.name} is not finite")
    return "diverged"


def _check_records(work: Work, command: Command, folder: Path, skips: int) -> None:
    records = sorted(folder.glob("nonfinite_*.json"))
    told = f"{folder.name}: {len(records)} records with {skips} skips"
    work.expect(len(records) == skips + 1, told)
    for path in records:
        content = json.loads(path.read_text(encoding="utf-8"))
        files = [file for one in content["processes"] for file in one["files"]]
        named = files and all(file in command.text for file in files)
        work.expect(named, f"{folder.name}: {path.name} names {files}, the console does not")
    work.expect(not has_traceback(command.text), f"{folder.name}: a traceback")


def all_finite(value: Any) -> bool:
    """Return True if all tensors in nested values are finite."""
    if isinstance(value, torch.Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    if isinstance(value, dict):
        return all(map(all_finite, value.values()))
    return not isinstance(value, list | tuple) or all(map(all_finite, value))


def _resume_from_nan(work: Work, dialect: str, part: str) -> None:
    """Put a NaN into the last checkpoint; --resume must take the one before."""
    name = f"{dialect}_{part}"
    folder = work.folder / name
    shutil.copytree(work.reference(dialect, iterations=12), folder)
    (folder / "model_final.pth").unlink()
    path = folder / "model_0000008.pth"
    content = read_file(path, extras=False).value
    _tensor_of(content, part).view(-1)[0] = float("nan")
    write_file(path, content, {}, overwrite=True)
    tag_checkpoint(folder, path.name)
    command = work.finish(name, dialect)
    begin = started_from(command.text)
    work.expect(begin == 6, f"{name}: NaN in the last checkpoint, resumed from {begin}")
    work.expect("not finite" in command.text, f"{name}: no warning of NaN")


def _tensor_of(content: dict, part: str) -> torch.Tensor:
    """Return a tensor of the weights, of their average, or of the optimizer's state."""
    if part == "optimizer":
        trainer = content["trainer"]
        state = trainer.get("_trainer", trainer)["optimizer"]["state"]
        return next(iter(state.values()))["exp_avg"]
    return _largest(content["model"] if part == "model" else content["average"]["trained"])


def _largest(tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    floating = [one for one in tensors.values() if one.is_floating_point()]
    return max(floating, key=torch.Tensor.numel)
