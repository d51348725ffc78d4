"""Peak memory of one run, in addition to weights, images and libraries.

On a GPU, PyTorch's allocator counts it.  On a CPU, it is the peak resident memory of a separate
process.  Linux resets this peak on demand; where that is not allowed, a thread takes samples.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch

from benchmarking.candidates import Candidate, build, parse
from benchmarking.runs import runner
from benchmarking.settings import Setting
from benchmarking.weights import random_backbone, random_images

STATUS, STATM = Path("/proc/self/status"), Path("/proc/self/statm")
CLEAR_REFS = Path("/proc/self/clear_refs")  # "5" resets the peak of resident memory
SAMPLING_INTERVAL = 0.001  # seconds

Peak = dict[str, int | str]  # "bytes" and "measured_by", or "error"

# One arena, and every block of 64 KiB or more mapped by itself and returned at once, so that
# resident memory is the memory in use, without free memory that the allocator keeps.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "65536",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_MMAP_MAX_": "1000000",
}


def peak_or_error(peak: Peak | None) -> int | str | None:
    """Return the bytes of a measurement, or its error message."""
    return None if peak is None else peak.get("bytes", peak.get("error"))


def in_process_of_its_own(script: Path, candidate: Candidate, setting: Setting) -> Peak:
    """Measure a candidate in a new process: ``bytes`` and ``measured_by``, or ``error``.

    Args:
        script: tools/benchmark.py, which passes ``--memory-of`` to :func:`report`.
    """
    request = json.dumps({"candidate": candidate.argument, "setting": setting.as_json()})
    done = subprocess.run(
        [sys.executable, str(script), "--memory-of", request],
        env=os.environ | ALLOCATOR,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        return {"error": last}
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(request: str) -> str:
    """Return the text that the new process prints in reply to a request."""
    asked = json.loads(request)
    setting = Setting.from_json(asked["setting"])
    torch.set_num_threads(setting.threads)
    return json.dumps(of_candidate(parse(asked["candidate"]), setting))


def of_candidate(candidate: Candidate, setting: Setting) -> Peak:
    """Measure one run, with weights and images in place, after a warm-up at 64x64.

    The warm-up initializes libraries and threads; it uses a second model, because peers are built
    for one size.  Another run before the measured one compiles the model and fills caches.
    """
    weights = random_backbone(setting)
    small = replace(setting, size=(64, 64), batch=1, window=min(setting.window, 2))
    plain = replace(candidate, compiled=False)
    runner(build(plain, small, weights), random_images(small), small)()
    model = build(candidate, setting, weights)
    run = runner(model, random_images(setting), setting)
    del weights
    run()
    model.zero_grad(set_to_none=True)  # gradients are part of what a run needs
    return peak_of(run, setting.device)


def peak_of(call: Callable[[], object], device: str) -> Peak:
    """Measure the peak memory of a call in bytes, above the memory in use before it."""
    gc.collect()
    if device == "cuda":
        return _peak_of_allocator(call)
    return_free_memory()
    if can_reset_peak():
        before = _status("VmRSS")
        CLEAR_REFS.write_text("5", encoding="utf-8")
        call()
        peak, how = _status("VmHWM"), "the kernel's peak of resident memory"
    else:
        before = _sampled()
        peak, how = _sample(call)
    return {"bytes": max(0, peak - before), "measured_by": how}


def _peak_of_allocator(call: Callable[[], object]) -> Peak:
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    peak = torch.cuda.max_memory_allocated()
    return {"bytes": peak - before, "measured_by": "PyTorch's allocator"}


def can_reset_peak() -> bool:
    """Return whether this is Linux and this process may reset its own peak."""
    try:
        CLEAR_REFS.write_text("5", encoding="utf-8")
    except OSError:
        return False
    return True


def return_free_memory() -> None:
    """Make glibc, if used, return its free memory to the system."""
    with suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status(field: str) -> int:
    """Return the bytes of a field of Linux's /proc/self/status."""
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) * 1024
    raise KeyError(field)


def _sampled() -> int:
    """Return the resident bytes now.

    Raises:
        OSError: There is no /proc, because the system is not Linux.
    """
    return int(STATM.read_text(encoding="utf-8").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _sample(call: Callable[[], object]) -> tuple[int, str]:
    """Return the largest of many samples during a call, and a description of the method."""
    done, largest = threading.Event(), [_sampled()]

    def watch() -> None:
        while not done.wait(SAMPLING_INTERVAL):
            largest[0] = max(largest[0], _sampled())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        call()
    finally:
        done.set()
        thread.join()
    return max(largest), f"samples of resident memory every {SAMPLING_INTERVAL * 1000:g} ms"
