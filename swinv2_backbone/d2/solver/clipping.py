"""The norm of gradients, and gradient clipping."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

CLIPPING = ("value", "norm", "full_model")  # each element, each parameter, all parameters together


def gradient_norm(parameters: Sequence[nn.Parameter]) -> float:
    """Return the Euclidean norm of all gradients together."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    return float(_whole(norm))


def clip_gradients(
    parameters: Sequence[nn.Parameter], kind: str, value: float, norm_type: float = 2.0
) -> None:
    """Clip gradients in place.

    Args:
        kind: one of ``CLIPPING``: "value" clips each element, "norm" the norm of each parameter's
            gradient, and "full_model" the norm of all gradients together.
        value: largest absolute value or norm.
        norm_type: order of the norm.

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
        raise ValueError(f"clipping must be one of {', '.join(CLIPPING)}, got {kind!r}")


def _whole(norm: Tensor) -> Tensor:
    """Return the norm as an ordinary tensor; that of sharded gradients is a DTensor."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm
