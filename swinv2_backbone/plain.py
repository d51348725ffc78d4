"""Plain modules: modules whose class and parameters alone determine what they compute.

Only of a plain module may the parameters be read instead of calling it, as kernels do.  Any other
module is called: one with a hook, an adapter, a parametrization, a quantized weight, a ``forward``
of its own.  Everything in this package that reads the parameters of a layer asks here first.
"""

from __future__ import annotations

from collections.abc import Iterator

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
    """

    def __init__(self, owner: nn.Module):
        self._built = self._last = Record(owner)

    def are_plain(self, owner: nn.Module) -> bool:
        """Return True if the inner modules of ``owner`` are plain and of the classes as built."""
        if torch.compiler.is_compiling():  # a graph cannot hold a record
            return Record(owner, self._built).fits(owner)
        if not self._last.fits(owner):
            # A layer may have been replaced by one of its class.
            record = Record(owner, self._built)
            if not record.fits(owner):
                return False
            self._last = record
        return True


class Record:
    """A record of inner modules, by which a change is detected within microseconds.

    Args:
        owner: the module whose inner modules, at any depth, are recorded.
        built: the record of the module as it was built; None if ``owner`` was just built.
    """

    def __init__(self, owner: nn.Module, built: Record | None = None):
        modules = list(_inside(owner))
        built = self if built is None else built
        self.kinds = [type(module) for module in modules]
        self.names = [_parameter_names(module) for module in modules]
        self._as_built = self.kinds == built.kinds
        self._children = list(owner._modules.values())
        self._modules = [
            (module, kind, names, list(module._modules.values()))
            for module, kind, names in zip(modules, built.kinds, built.names)
        ]

    def fits(self, owner: nn.Module) -> bool:
        """Return True if ``owner`` contains these modules and no others, plain and as built.

        This runs for every block in every forward, so it is written for speed and repeats the
        conditions of :func:`is_plain`.
        """
        if not self._as_built or list(owner._modules.values()) != self._children:
            return False
        for module, kind, names, children in self._modules:
            if (
                type(module) is not kind
                or module._forward_hooks
                or module._forward_pre_hooks
                or module._backward_hooks
                or module._backward_pre_hooks
                or "forward" in module.__dict__
                or ((children or module._modules) and list(module._modules.values()) != children)
            ):
                return False
            parameters = module._parameters
            for name in names:
                if (
                    type(parameters.get(name)) not in ORDINARY
                    # The parameters of a DataParallel replica are attributes.
                    and type(module.__dict__.get(name)) not in ORDINARY
                ):
                    return False
            for name in parameters:  # such as a bias that the layer was built without
                if name not in names and parameters[name] is not None:
                    return False
        return not torch.nn.modules.module._has_any_global_hook()


def _inside(module: nn.Module) -> Iterator[nn.Module]:
    """Yield all descendants of a module; faster than ``modules()``."""
    for child in module._modules.values():
        if child is not None:
            yield child
            yield from _inside(child)


def _parameter_names(module: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, parameter in module._parameters.items() if parameter is not None)
