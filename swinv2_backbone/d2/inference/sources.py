"""The weights and the device of a trained model, as changes to its config."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from swinv2_backbone.recipes import is_lazy


def changes(config: Path, weights: str | None, device: str | None) -> list[str]:
    """Return the config changes, in its dialect, that set the weights and the device."""
    lazy = is_lazy(config)
    found: list[str] = []
    for value, key, lazy_key in (
        (weights, "MODEL.WEIGHTS", "train.init_checkpoint"),
        (device, "MODEL.DEVICE", "train.device"),
    ):
        if value is not None:
            found += [f"{lazy_key}={value}"] if lazy else [key, value]
    return found


def checked_device(device: str | torch.device | None) -> str:
    """Return the name of a device; by default that of a GPU, or the CPU without one.

    Raises:
        ValueError: PyTorch does not know the device, or there is none.
    """
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {str(device)!r}: {str(error).splitlines()[0]}") from error
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device {str(device)!r}: PyTorch finds {torch.cuda.device_count()} GPUs; use 'cpu', "
            "or install PyTorch for your GPU"
        )
    return str(found)


def with_device(config: str, opts: Sequence[str], device: str | None) -> list[str]:
    """Return config changes with the device of a command line's ``--device``, if there is one."""
    if device is None:
        return list(opts)
    return [*opts, *changes(Path(config), None, checked_device(device))]
