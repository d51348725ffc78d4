"""Running an exported file in another runtime, in a process of its own.

A runtime may end its process at a file that it cannot run; here that is an error with its signal.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

CHILD = Path(__file__).with_name("child.py")
TIME_LIMIT = 900  # seconds
# With this setting, the C library of Linux (glibc) fills memory that a process gets with 0x7F, in
# float32 3.4e38: a runtime that reads memory it never wrote returns nonsense in every run, not in
# some.
FILLED = {"MALLOC_PERTURB_": str(0x80)}
UNNAMED = ("tract", "ncnn")  # runtimes that do not keep the names of outputs, only their order


class Found(NamedTuple):
    """What a runtime computed.

    Attributes:
        outputs: for each batch, its outputs by name.
        seconds: for each batch, the time of the fastest run on one thread.
    """

    outputs: list[dict[str, Tensor]]
    seconds: list[float]


def run_in(
    name: str,
    path: Path,
    batches: Sequence[Tensor],
    names: Sequence[str],
    python: str = sys.executable,
    filled: bool = False,
) -> Found:
    """Run a file in a runtime.

    Args:
        name: a key of ``RUNTIMES``.
        path: the file.
        batches: images (B, C_in, H, W).
        names: the names of the outputs, in order.
        python: the interpreter of the environment with the runtime.
        filled: the memory of the process is filled, see ``FILLED``, which costs time.

    Raises:
        ValueError: the runtime failed; the message has its last words, or the signal.
    """
    with tempfile.TemporaryDirectory() as folder:
        inputs, outputs = Path(folder) / "inputs.npz", Path(folder) / "outputs.npz"
        arrays: dict[str, Any] = {str(i): images.numpy() for i, images in enumerate(batches)}
        np.savez(inputs, **arrays)
        command = [python, str(CHILD), name, str(path.resolve()), str(inputs), str(outputs)]
        environment = {**os.environ, **(FILLED if filled else {})}
        try:
            ended = subprocess.run(
                command,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIME_LIMIT,
                env=environment,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"{name} did not answer within {TIME_LIMIT} seconds") from None
        if ended.returncode < 0:
            raise ValueError(f"{name} ended its process: {signal.Signals(-ended.returncode).name}")
        if ended.returncode:
            raise ValueError(f"{name} failed: {last_words(ended.stderr)}")
        with np.load(outputs) as found:
            return Found(_by_name(name, found, len(batches), names), found["seconds"].tolist())


def last_words(text: str) -> str:
    """Return the last error in what a process wrote, in one line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line or "error" in line]
    return (errors or lines or ["it wrote nothing"])[-1][:300]


def _by_name(
    runtime: str, found: np.lib.npyio.NpzFile, batches: int, names: Sequence[str]
) -> list[dict[str, Tensor]]:
    """Return the outputs of each batch in the order of ``names``; if one is absent, all others."""
    outputs: list[dict[str, Tensor]] = []
    for number in range(batches):
        prefix = f"{number} "
        one = {
            key.removeprefix(prefix): torch.from_numpy(found[key])
            for key in found
            if key.startswith(prefix)
        }
        if runtime in UNNAMED and len(one) == len(names):
            one = dict(zip(names, one.values()))
        outputs.append({name: one[name] for name in names} if set(names) <= set(one) else one)
    return outputs
