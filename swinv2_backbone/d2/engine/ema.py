"""The exponential moving average of the weights during training."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from swinv2_backbone.backbone import SwinV2

TensorList = list[Tensor] | tuple[Tensor, ...]


class WeightAverage:
    """The exponential moving average of a model's weights and buffers.

    The decay rises to ``decay`` as (1 + n) / (10 + n) over the steps n, so that the initial weights
    are soon forgotten even in a short run.

    A checkpoint has the average as its ``model``, because the average was evaluated; the raw
    weights are part of this object's state.

    Args:
        model: model in training, without its distributed wrapper.
        decay: highest decay.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = model, decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._lerp, use_buffers=True)

    @property
    def averaged(self) -> nn.Module:
        return self._averaged.module

    def start(self) -> None:
        """Start from the weights of the model, once they are loaded.

        A resumed average keeps its own weights.
        """
        if self._averaged.n_averaged == 0:
            self.averaged.load_state_dict(self.model.state_dict())
        # The pretrained windows come with the weights, but are not part of a state dict.
        for trained, averaged in zip(_backbones(self.model), _backbones(self.averaged)):
            averaged.set_pretrained_window_sizes(trained.pretrained_window_sizes)

    def update(self) -> None:
        """Add the weights after a step to the average."""
        self._averaged.update_parameters(self.model)

    def state_dict(self) -> dict[str, Any]:
        return {"n_averaged": self._averaged.n_averaged, "trained": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state after ``model`` has loaded the average from the checkpoint."""
        self.averaged.load_state_dict(self.model.state_dict())
        self._averaged.n_averaged.copy_(state["n_averaged"])
        self.model.load_state_dict(state["trained"])

    @torch.no_grad()
    def _lerp(self, average: TensorList, current: TensorList, n_averaged: Tensor | int) -> None:
        """Update averages of one dtype in place; integers (counters of batch norm) are copied."""
        n = int(n_averaged)
        decay = min(self.decay, (1 + n) / (10 + n))
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, current, 1 - decay)
        else:
            torch._foreach_copy_(average, current)


class AverageWeights(HookBase):
    """A hook that updates a :class:`WeightAverage` after each step.

    It must run before the hooks that save or evaluate.
    """

    def __init__(self, average: WeightAverage):
        self.average = average

    def after_step(self) -> None:
        self.average.update()


def _backbones(model: nn.Module) -> list[SwinV2]:
    return [part for part in model.modules() if isinstance(part, SwinV2)]
