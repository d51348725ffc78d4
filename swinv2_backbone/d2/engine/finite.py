"""The check that weights and the state of an optimizer are finite, before they are kept or used."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

REMEDY = "the training has diverged: continue from an earlier checkpoint with a lower learning rate"


def require_finite(model: nn.Module, purpose: str) -> None:
    """Raise FloatingPointError unless all parameters of a model are finite.

    Args:
        purpose: what they are needed for, for the message.
    """
    parameters = dict(model.named_parameters())
    if text := describe_nonfinite(parameters, parameters):
        raise FloatingPointError(f"{purpose}: {text}; {REMEDY}")


def describe_nonfinite(model: Mapping[str, Any], parameters: Collection[str], **more: Any) -> str:
    """Describe the tensors that have NaN or infinite values; "" if there are none.

    Args:
        model: state of a model, or its parameters by name. Buffers are not checked, because the
            masks of other projects' models may be infinite.
        parameters: names of the parameters.
        more: other states by name, such as that of an optimizer; all their tensors are checked.
    """
    own = {name: model[name] for name in parameters if name in model}
    names = [name for state in (own, more) for name, one in _tensors(state) if not _finite(one)]
    if not names:
        return ""
    return f"{len(names)} tensors have values that are not finite, such as {names[0]}"


def _tensors(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of nested dicts and lists with the path of their keys."""
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, Mapping | list | tuple):
        entries = state.items() if isinstance(state, Mapping) else enumerate(state)
        for key, one in entries:
            yield from _tensors(one, f"{name}.{key}" if name else str(key))


@torch.no_grad()
def _finite(tensor: Tensor) -> bool:
    """Return False for NaN and infinity; what PyTorch cannot check, such as float8, passes."""
    local = tensor.to_local() if hasattr(tensor, "to_local") else tensor  # of a sharded model
    if not (local.is_floating_point() or local.is_complex()):
        return True
    try:
        return bool(local.isfinite().all())
    except RuntimeError:  # not implemented for this dtype or layout
        return True
