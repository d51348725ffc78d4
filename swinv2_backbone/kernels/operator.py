"""Kernels as operators of torch.library, opaque to torch.compile.

The arguments of an operator are declared once, as the fields of a NamedTuple.  The schemas of the
operator and of its backward, the unpacking of their calls, the tensors saved for the backward and
the order of the gradients follow from these fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar, get_type_hints

import torch
from torch import Tensor

SCHEMA_TYPES: dict[Any, str] = {
    Tensor: "Tensor",
    list[Tensor]: "Tensor[]",
    list[int]: "SymInt[]",
    bool: "bool",
    int: "SymInt",
    float: "float",
    torch.dtype: "ScalarType",
}

Arguments = TypeVar("Arguments", bound=tuple[Any, ...])  # a NamedTuple


def _as_given(arguments: Arguments, activations: Sequence[Tensor]) -> Arguments:
    return arguments


class Operator(Generic[Arguments]):
    """A function with its own backward, registered as ``torch.ops.swinv2.<name>``.

    Args:
        name: name of the operator; its backward is the operator ``<name>_backward``.
        arguments: a NamedTuple whose fields have the types of ``SCHEMA_TYPES``.
        learned: the fields that receive gradients.
        forward: arguments -> [output, *saved activations].
        backward: (gradient of the output, saved activations, arguments) -> gradients of the
            learned fields, in order.
        empty_results: arguments -> uninitialized results of ``forward``, for fake tensors.
        empty_gradients: the same for ``backward``.
        to_save: (arguments, saved activations) -> the arguments that ``backward`` takes.
        saves_output: True if the output is the first of the saved activations.
    """

    def __init__(
        self,
        name: str,
        arguments: type[Arguments],
        learned: tuple[str, ...],
        *,
        forward: Callable[[Arguments], list[Tensor]],
        backward: Callable[[Tensor, Sequence[Tensor], Arguments], list[Tensor]],
        empty_results: Callable[[Arguments], list[Tensor]],
        empty_gradients: Callable[[Tensor, Arguments], list[Tensor]],
        to_save: Callable[[Arguments, Sequence[Tensor]], Arguments] = _as_given,
        saves_output: bool = False,
    ):
        self.name, self.arguments, self.learned = name, arguments, learned
        self.forward, self.backward, self.to_save = forward, backward, to_save
        self.saves_output = saves_output
        self.types = get_type_hints(arguments)
        self._register(empty_results, empty_gradients)

    def __call__(self, arguments: Arguments) -> list[Tensor]:
        """Call the operator."""
        return getattr(torch.ops.swinv2, self.name)(*arguments)

    def call_backward(
        self, grad: Tensor, activations: Sequence[Tensor], arguments: Arguments
    ) -> list[Tensor]:
        """Call the operator's backward."""
        return getattr(torch.ops.swinv2, f"{self.name}_backward")(grad, activations, *arguments)

    def differentiable(self, arguments: Arguments) -> Tensor:
        """Return the output alone; faster, because it bypasses PyTorch's dispatcher."""
        learned = [
            tensor
            for field, value in zip(self.types, arguments)
            if field in self.learned
            for tensor in ([value] if isinstance(value, Tensor) else value)
        ]
        return _Direct.apply(self, arguments, *learned)

    def save(self, ctx: Any, arguments: Arguments, results: Sequence[Tensor]) -> None:
        """Save arguments and activations in the autograd context."""
        activations = results if self.saves_output else results[1:]
        tensors: list[Tensor] = []
        ctx.form = []  # per field: None for a tensor, the length of a list of tensors, or the value
        for kind, value in zip(self.types.values(), self.to_save(arguments, activations)):
            if kind is Tensor:
                tensors.append(value)
            elif kind == list[Tensor]:
                tensors += value
                value = len(value)
            ctx.form.append(value if kind is not Tensor else None)
        ctx.save_for_backward(*tensors, *activations)

    def load(self, ctx: Any) -> tuple[Arguments, list[Tensor]]:
        """Return the saved arguments and activations."""
        tensors = list(ctx.saved_tensors)
        values: list[Any] = []
        for kind, value in zip(self.types.values(), ctx.form):
            if kind is Tensor:
                value = tensors.pop(0)
            elif kind == list[Tensor]:
                count: int = value
                value, tensors = tensors[:count], tensors[count:]
            values.append(value)
        return self.arguments(*values), tensors

    def _register(
        self,
        empty_results: Callable[[Arguments], list[Tensor]],
        empty_gradients: Callable[[Tensor, Arguments], list[Tensor]],
    ) -> None:
        name, backward = f"swinv2::{self.name}", f"swinv2::{self.name}_backward"
        schema = ", ".join(f"{SCHEMA_TYPES[kind]} {field}" for field, kind in self.types.items())
        # Not torch.library.custom_op, which imports the whole compiler at the first call.
        torch.library.define(name, f"({schema}) -> Tensor[]")
        torch.library.define(backward, f"(Tensor grad, Tensor[] saved, {schema}) -> Tensor[]")

        def forward(*values: Any) -> list[Tensor]:
            return self.forward(self.arguments(*values))

        def backward_of(grad: Tensor, saved: Sequence[Tensor], *values: Any) -> list[Tensor]:
            return self.backward(grad, saved, self.arguments(*values))

        torch.library.impl(name, "default", forward)
        torch.library.impl(backward, "default", backward_of)
        torch.library.register_fake(name, lambda *values: empty_results(self.arguments(*values)))
        torch.library.register_fake(
            backward, lambda grad, saved, *values: empty_gradients(grad, self.arguments(*values))
        )
        torch.library.register_autograd(name, self._differentiate, setup_context=self._set_up)
        torch.library.register_autograd(backward, _refuse)

    def _set_up(self, ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
        self.save(ctx, self.arguments(*inputs), output)
        ctx.set_materialize_grads(False)  # the saved activations have no gradients

    def _differentiate(self, ctx: Any, grads: Sequence[Tensor | None]) -> tuple[Any, ...]:
        arguments, activations = self.load(ctx)
        found: list[Tensor] = []
        if grads[0] is not None:
            found = self.call_backward(grads[0].contiguous(), activations, arguments)
        placed: list[Any] = []
        left: Iterator[Tensor] = iter(found)
        none: Iterator[Tensor] = iter(())
        for (field, kind), value in zip(self.types.items(), arguments):
            own = left if field in self.learned else none
            if kind == list[Tensor]:
                placed.append([next(own, None) for _ in value])
            else:
                placed.append(next(own, None))
        return tuple(placed)


class _Direct(torch.autograd.Function):
    """An operator called without PyTorch's dispatcher."""

    @staticmethod
    def forward(ctx: Any, operator: Operator[Any], arguments: Any, *learned: Tensor) -> Tensor:
        results = operator.forward(arguments)
        operator.save(ctx, arguments, results)
        ctx.operator = operator
        return results[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        operator = ctx.operator
        arguments, activations = operator.load(ctx)
        if torch.is_grad_enabled():  # double backward: the operator raises an error
            return None, None, *operator.call_backward(grad, activations, arguments)
        return None, None, *operator.backward(grad, activations, arguments)


def _refuse(ctx: Any, grads: Sequence[Tensor]) -> None:
    raise RuntimeError(
        "the kernels do not support double backward: build the model with kernel='reference'"
    )
