"""Plain modules: modules whose class and parameters alone determine what they compute.

A kernel that computes a whole block reads the parameters of the inner modules without calling the
modules.  It would ignore hooks, adapters, and quantized or parametrized layers, so a block checks
for them in every forward.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor

ORDINARY = (nn.Parameter, Tensor, FakeTensor)  # FakeTensor: a parameter without storage


def is_plain(module: nn.Module) -> bool:
    """Return True if a call runs the ``forward`` of the class alone, on ordinary parameters.

    Hooks, a ``forward`` set on the instance, and quantized or otherwise special parameters make a
    module not plain.
    """
    hooked = (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or "forward" in module.__dict__
    )
    return not hooked and all(p is None or type(p) in ORDINARY for p in module._parameters.values())


class Parts:
    """The inner modules of a block, recorded so that a change is detected within microseconds.

    Args:
        block: the block whose modules, at any depth, are recorded.
        built: the record of the block as it was built; None if ``block`` was just built.

    Attributes:
        kinds: the classes of the modules.
        names: the names of the parameters that each module was built with.
        norms: the LayerNorms.
    """

    def __init__(self, block: nn.Module, built: Parts | None = None):
        modules = list(_inside(block))
        self.kinds = [type(module) for module in modules]
        own = [_parameter_names(module) for module in modules]
        self.names: list[tuple[str, ...]] = own if built is None else built.names
        self.norms = [module for module in modules if isinstance(module, nn.LayerNorm)]
        self._children = list(block._modules.values())
        self._records = [
            (module, kind, names, list(module._modules.values()))
            for module, kind, names in zip(modules, self.kinds, self.names)
        ]

    def unchanged_in(self, block: nn.Module) -> bool:
        """Return True if ``block`` contains these modules and no others, and all are plain.

        This runs for every block in every forward, so it is written for speed and repeats the
        conditions of :func:`is_plain`.
        """
        if list(block._modules.values()) != self._children:
            return False
        for module, kind, names, children in self._records:
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
        return not torch.nn.modules.module._has_any_global_hook()


def _inside(module: nn.Module) -> Iterator[nn.Module]:
    """Yield all descendants of a module; faster than ``modules()``."""
    for child in module._modules.values():
        if child is not None:
            yield child
            yield from _inside(child)


def _parameter_names(module: nn.Module) -> tuple[str, ...]:
    return tuple(name for name, parameter in module._parameters.items() if parameter is not None)
