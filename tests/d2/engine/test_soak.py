"""The resources of a long training do not grow (R18 of docs/RELIABILITY.md)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import small_training
import torch
from detectron2.engine import HookBase
from processes import together
from small_training import config

from swinv2_backbone.d2.engine.trainer import Trainer


@pytest.fixture(scope="module", autouse=True)
def dataset(tmp_path_factory):
    yield small_training.register(tmp_path_factory.mktemp("images"))
    small_training.forget()


class Measure(HookBase):
    """Measure resident memory (KiB), threads and open files of this process periodically."""

    def __init__(self, every: int):
        self.every, self.found = every, []

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self.every == 0:
            self.found.append((resident(), count("task"), count("fd")))


def resident() -> int:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmRSS:")[1].split()[0])


def count(kind: str) -> int:
    return len(os.listdir(f"/proc/self/{kind}"))


def soak(folder: Path, iterations: int, every: int) -> list[tuple[int, int, int]]:
    torch.set_num_threads(1)
    cfg = config(folder, iterations, max(every, 50), workers=2)
    trainer = Trainer(cfg)
    trainer.resume_or_load(False)
    measure = Measure(every)
    trainer.register_hooks([measure])
    trainer.train()
    return measure.found


def growth(folder: Path, iterations: int, every: int) -> float:
    """Return the growth of resident memory, from the peak of the second quarter to the last's."""
    (found,) = together(1, soak, folder, iterations, every, folder=folder / "logs", timeout=3000)
    memory, threads, files = zip(*found)
    quarter = len(found) // 4
    assert min(threads[-quarter:]) <= min(threads[:quarter]), threads
    assert min(files[-quarter:]) <= min(files[:quarter]), files
    return max(memory[-quarter:]) / max(memory[quarter : 2 * quarter]) - 1


@pytest.mark.slow
def test_memory_threads_and_files_do_not_grow(tmp_path):
    assert growth(tmp_path, iterations=80, every=5) < 0.05


@pytest.mark.reliability
def test_memory_threads_and_files_do_not_grow_in_2000_iterations(tmp_path, record_figures):
    found = growth(tmp_path, iterations=2000, every=50)
    record_figures("R18", f"2,000 iterations: resident memory {found:+.1%}, no thread or file more")
    assert found < 0.05
