"""The machine that a number was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def describe(device: str, threads: int) -> dict[str, object]:
    """Return the processor, PyTorch version and threads that a measurement depends on."""
    found: dict[str, object] = {
        "cpu": cpu_name(),
        "cores": cores(),
        "avx512": "avx512f" in _cpu_info("flags").split(),
        "torch_cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "threads": threads,
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
    }
    if device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
    return found


def one_line(machine: dict) -> str:
    """Return the description in words, which identifies the machine of a result."""
    gpu = f"{machine['gpu']}, CUDA {machine['cuda']}, on " if "gpu" in machine else ""
    avx = "with" if machine["avx512"] else "without"
    return (
        f"{gpu}{machine['cpu']}, {machine['cores']} cores {avx} AVX-512, {machine['threads']} "
        f"threads, PyTorch {machine['torch']}"
    )


def cpu_name() -> str:
    """Return the name with family and model, as one name may be used for several generations."""
    name = _cpu_info("model name") or platform.processor() or platform.machine()
    family, model = _cpu_info("cpu family"), _cpu_info("model")
    return f"{name} (family {family}, model {model})" if family and model else name


def cores() -> int:
    """Return the number of logical cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_info(key: str) -> str:
    """Return a field of Linux's /proc/cpuinfo; empty elsewhere."""
    file = Path("/proc/cpuinfo")
    for line in file.read_text(encoding="utf-8").splitlines() if file.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
