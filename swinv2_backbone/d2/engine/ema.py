"""The average of the weights in training (``SOLVER.EMA``)."""

from __future__ import annotations

import torch
from detectron2.engine import HookBase
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from swinv2_backbone.backbone import SwinV2


class WeightAverage:
    """The exponential moving average of a model's weights and buffers.

    The weight of the past rises to ``decay`` as (1 + n) / (10 + n) over the steps n, so that a
    short training forgets its random start too.

    A checkpoint holds the average as its ``model``, since that is what was evaluated; the weights
    that are being trained are part of this object's state.

    Args:
        model: the one that is trained, without its distributed wrapper.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.model, self.decay = model, decay
        self._averaged = AveragedModel(model, multi_avg_fn=self._step, use_buffers=True)

    @property
    def averaged(self) -> nn.Module:
        return self._averaged.module

    def start(self) -> None:
        """Called when the model has been given its weights: follow it from there.

        An average that was resumed keeps its own weights.
        """
        if self._averaged.n_averaged == 0:
            self.averaged.load_state_dict(self.model.state_dict())
        # What normalises the position bias comes with the weights, but is none of them.
        for trained, averaged in zip(_backbones(self.model), _backbones(self.averaged)):
            averaged.set_pretrained_window_sizes(trained.pretrained_window_sizes)

    def update(self) -> None:
        self._averaged.update_parameters(self.model)

    @torch.no_grad()
    def _step(self, average: list[Tensor], current: list[Tensor], n_averaged: Tensor) -> None:
        """Called with tensors of one dtype.  Counters (of batch norm) are copied."""
        n = n_averaged.item()
        decay = min(self.decay, (1 + n) / (10 + n))
        if average[0].is_floating_point():
            torch._foreach_lerp_(average, current, 1 - decay)
        else:
            torch._foreach_copy_(average, current)

    def state_dict(self) -> dict:
        return {"n_averaged": self._averaged.n_averaged, "trained": self.model.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        """Called when ``model`` has just been given the weights of the checkpoint: the average."""
        self.averaged.load_state_dict(self.model.state_dict())
        self._averaged.n_averaged.copy_(state["n_averaged"])
        self.model.load_state_dict(state["trained"])


def _backbones(model: nn.Module) -> list[SwinV2]:
    return [part for part in model.modules() if isinstance(part, SwinV2)]


class AverageWeights(HookBase):
    """Updates a :class:`WeightAverage` after each step; comes before what saves or evaluates."""

    def __init__(self, average: WeightAverage):
        self.average = average

    def after_step(self) -> None:
        self.average.update()
