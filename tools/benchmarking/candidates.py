"""The candidates: ours, by kernel, and the peers; eager, compiled or with checkpointing.

A name is a publisher, then its variations: ``ours``, ``ours:tiles``, ``timm+compile``,
``ours+checkpointing``, ``microsoft=path/swin_transformer_v2.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
from torch import nn

from benchmarking.peers import PEERS, build_peer, is_installed
from benchmarking.settings import Setting
from swinv2_backbone import SwinV2, build_backbone
from swinv2_backbone.kernels import choose as choice

OURS = "ours"
AUTO = "auto"  # the kernel that a user gets
KERNELS = tuple(kernel for kernel in choice.KERNELS if kernel != AUTO)
COMPILE, CHECKPOINTING = "+compile", "+checkpointing"


@dataclass(frozen=True)
class Candidate:
    """An implementation to compare with others.

    Attributes:
        publisher: "ours" or a key of PEERS.
        kernel: The kernel of ours; "auto" for peers.
        path: Microsoft's file; None for others.
        compiled: Whether it runs under torch.compile.
        checkpointing: Whether it has activation checkpointing.
    """

    publisher: str
    kernel: str = AUTO
    path: Path | None = None
    compiled: bool = False
    checkpointing: bool = False

    @property
    def name(self) -> str:
        kernel = "" if self.kernel == AUTO else f":{self.kernel}"
        compiled = COMPILE if self.compiled else ""
        return self.publisher + kernel + (CHECKPOINTING if self.checkpointing else "") + compiled

    @property
    def argument(self) -> str:
        """The argument of :func:`parse` that gives this candidate, with the path."""
        return self.name if self.path is None else f"{self.name}={self.path}"

    @property
    def is_peer(self) -> bool:
        return self.publisher != OURS

    @property
    def is_eager_peer(self) -> bool:
        """Whether other candidates may be compared with it as a ratio."""
        return self.is_peer and not self.compiled and not self.checkpointing


def named(name: str) -> Candidate:
    """Return the candidate with a name, without checking that it is available."""
    compiled, name = name.endswith(COMPILE), name.removesuffix(COMPILE)
    checkpointing, name = name.endswith(CHECKPOINTING), name.removesuffix(CHECKPOINTING)
    publisher, colon, kernel = name.partition(":")
    return Candidate(
        publisher, kernel if colon else AUTO, compiled=compiled, checkpointing=checkpointing
    )


def parse(text: str) -> Candidate:
    """Return the candidate of an argument.

    Raises:
        ValueError: No candidate has this name, it is not installed, or its file is missing.
    """
    name, _, path = text.partition("=")
    found = named(name)
    publisher, has_kernel = found.publisher, ":" in name
    known = found.kernel in KERNELS if has_kernel and publisher == OURS else not has_kernel
    if publisher not in (OURS, *PEERS) or not known or bool(path) != (publisher == "microsoft"):
        raise ValueError(f"unknown candidate {text!r}; there are: {', '.join(names())}")
    if publisher in PEERS and not is_installed(PEERS[publisher]):
        raise ValueError(f"{text}: {PEERS[publisher].module} is not installed")
    if path and not Path(path).is_file():
        raise ValueError(f"{text}: there is no file {path}")
    return replace(found, path=Path(path) if path else None)


def names() -> list[str]:
    """Return the names that :func:`parse` accepts, without "+compile" and "+checkpointing"."""
    peers = [name for name in PEERS if name != "microsoft"]
    return [OURS, *(f"{OURS}:{kernel}" for kernel in KERNELS), *peers, "microsoft=PATH"]


def installed() -> list[Candidate]:
    """Return ours and every installed peer except Microsoft's, which is a file."""
    peers = [Candidate(name) for name, peer in PEERS.items() if peer.module and is_installed(peer)]
    return [Candidate(OURS), *peers]


def with_variations(
    candidates: Sequence[Candidate], *, compiled: bool, checkpointing: bool
) -> list[Candidate]:
    """Add variations of the plain candidates: with checkpointing, where available, and compiled."""
    found = list(candidates)
    plain = [c for c in candidates if not c.compiled and not c.checkpointing]
    if checkpointing:
        able = [c for c in plain if not c.is_peer or PEERS[c.publisher].checkpoints]
        found += [replace(c, checkpointing=True) for c in able]
    if compiled:
        found += [replace(c, compiled=True) for c in plain]
    return list(dict.fromkeys(found))


def unfit(candidate: Candidate, setting: Setting) -> str | None:
    """Return why a candidate does not apply to a setting, or None."""
    if candidate.checkpointing and not setting.training:
        return "checkpointing changes nothing without a backward pass"
    if candidate.kernel == "triton" and setting.device == "cpu":
        return "Triton needs a GPU"
    if not candidate.is_peer:
        return None
    peer = PEERS[candidate.publisher]
    if candidate.checkpointing and not peer.checkpoints:
        return "it has no activation checkpointing of a stage alone"
    return peer.unfit(setting)


def build(candidate: Candidate, setting: Setting, weights: SwinV2) -> nn.Module:
    """Build the candidate with the given weights: images -> {"res2": ..., "res5": ...}.

    It is on the device of the setting.  For forward it is in the setting's dtype and in eval mode;
    for training, which runs under autocast, in float32 and in train mode (without stochastic
    depth).
    """
    model: nn.Module
    if candidate.is_peer:
        peer, path = PEERS[candidate.publisher], candidate.path
        model = build_peer(peer, setting, weights, candidate.checkpointing, path)
    else:
        model = _ours(candidate, setting)
        model.load_state_dict(weights.state_dict())
    model = model.to(setting.device).train(setting.training)
    if not setting.training:
        model = model.to(setting.torch_dtype)
    return cast(nn.Module, torch.compile(model)) if candidate.compiled else model


def _ours(candidate: Candidate, setting: Setting) -> SwinV2:
    return build_backbone(
        setting.model,
        window_size=setting.window,
        activation_checkpointing=candidate.checkpointing,
        kernel=candidate.kernel,
    )
