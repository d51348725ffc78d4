"""Plain modules: modules whose class and parameters alone determine what they compute.

Only of a plain module may the parameters be read instead of calling it, as kernels do.  Any other
module is called: one with a hook, an adapter, a parametrization, a quantized weight, a ``forward``
of its own.  Whatever in this package reads the parameters of a layer asks here first.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

ORDINARY = (nn.Parameter, Tensor, FakeTensor)  # FakeTensor: a parameter without storage


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Return True if a call runs the ``forward`` of the class ``kind`` alone, on plain tensors."""
    return (
        type(module) is kind
        and not is_hooked(module)
        and all(p is None or type(p) in ORDINARY for p in module._parameters.values())
    )


def is_hooked(module: nn.Module) -> bool:
    """Return True if a call of a module runs more than the ``forward`` of its class."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
        or torch.nn.modules.module._has_any_global_hook()
    )


class Parts:
    """The inner modules of a module as they were built.

    Args:
        owner: the module whose inner modules, at any depth, are recorded.
        any_dtype: the class of inner modules whose parameters may have a dtype of their own.
    """

    def __init__(self, owner: nn.Module, any_dtype: type[nn.Module] | None = None):
        self._any_dtype = any_dtype
        self._built = self._last = Record(owner, any_dtype)

    def parameters(self, owner: nn.Module) -> dict[str, Tensor] | None:
        """Return the parameters of the inner modules, by name; None unless they are as built.

        They are as built if they are plain, of the same classes and with the same parameters, and
        if the parameters of all linear layers and norms have one dtype.
        """
        found = self._last.read(owner)
        if found is None:  # a layer may have been replaced by one of its class
            record = Record(owner, self._any_dtype, self._built)
            found = record.read(owner)
            # A graph cannot hold a record.
            if found is not None and not torch.compiler.is_compiling():
                self._last = record
        return found


class Record:
    """A record of inner modules, by which a change is detected within microseconds.

    Args:
        owner, any_dtype: see :class:`Parts`.
        built: the record of the module as it was built; None if ``owner`` was just built.
    """

    def __init__(
        self, owner: nn.Module, any_dtype: type[nn.Module] | None, built: Record | None = None
    ):
        modules = list(_inside(owner))
        built = self if built is None else built
        self.kinds = [type(module) for _, module in modules]
        self.names = [_parameter_names(name, module) for name, module in modules]
        self._as_built = self.kinds == built.kinds
        self._children = list(owner._modules.values())
        typed = {id(module) for module in _of_one_dtype(owner, any_dtype)}
        self._modules = [
            (module, kind, *names, id(module) in typed, list(module._modules.values()))
            for (_, module), kind, names in zip(modules, built.kinds, built.names)
        ]

    def read(self, owner: nn.Module) -> dict[str, Tensor] | None:
        """Return the parameters if ``owner`` contains these modules and no others, as built.

        This runs for every block in every forward, so it is written for speed and repeats the
        conditions of :func:`is_plain`.
        """
        if not self._as_built or list(owner._modules.values()) != self._children:
            return None
        found: dict[str, Tensor] = {}
        dtype = None  # of the linear layers and norms
        for module, kind, present, absent, typed, children in self._modules:
            if (
                type(module) is not kind
                or module._forward_hooks
                or module._forward_pre_hooks
                or module._backward_hooks
                or module._backward_pre_hooks
                or "forward" in module.__dict__
                or ((children or module._modules) and list(module._modules.values()) != children)
            ):
                return None
            parameters = module._parameters
            for name, path in present:
                # The parameters of a DataParallel replica are attributes.
                own: Any = parameters[name] if name in parameters else module.__dict__.get(name)
                if type(own) not in ORDINARY:
                    return None
                if typed and own.dtype is not dtype:
                    if dtype is not None:
                        return None
                    dtype = own.dtype
                found[path] = own
            for name in absent:
                if parameters.get(name) is not None:  # a bias that the layer was built without
                    return None
        return None if torch.nn.modules.module._has_any_global_hook() else found


def _inside(
    module: nn.Module, prefix: str = "", but: type[nn.Module] | None = None
) -> Iterator[tuple[str, nn.Module]]:
    """Yield all descendants of a module with their names, but none inside those of ``but``.

    This is faster than ``named_modules()``.
    """
    for name, child in module._modules.items():
        if child is not None:
            yield f"{prefix}{name}", child
            if but is None or not isinstance(child, but):
                yield from _inside(child, f"{prefix}{name}.", but)


def _of_one_dtype(owner: nn.Module, any_dtype: type[nn.Module] | None) -> Iterator[nn.Module]:
    for _, module in _inside(owner, but=any_dtype):
        if isinstance(module, (nn.Linear, nn.LayerNorm)):
            yield module


def _parameter_names(
    prefix: str, module: nn.Module
) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...]]:
    """Return (name, full name) of a module's parameters, and the names of those that are None."""
    own = module._parameters.items()
    present = tuple((name, f"{prefix}.{name}") for name, value in own if value is not None)
    return present, tuple(name for name, value in own if value is None)
