"""The norm of gradients, and clipping them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

CLIPPING = ("value", "norm", "full_model")


def gradient_norm(parameters: Sequence[nn.Parameter]) -> float:
    """The Euclidean norm of all gradients together."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)


def clip_gradients(
    parameters: Sequence[nn.Parameter], kind: str, value: float, norm_type: float = 2.0
) -> None:
    """Clip in place; see :class:`swinv2_backbone.d2.engine.step.TrainingStep`.

    Raises:
        ValueError: ``kind`` is unknown.
    """
    if kind == "value":
        nn.utils.clip_grad_value_(parameters, value)
    elif kind == "norm":
        for parameter in parameters:
            nn.utils.clip_grad_norm_(parameter, value, norm_type)
    elif kind == "full_model":
        nn.utils.clip_grad_norm_(parameters, value, norm_type)
    else:
        raise ValueError(f"gradients are clipped by {', '.join(CLIPPING)}, not by {kind!r}")
