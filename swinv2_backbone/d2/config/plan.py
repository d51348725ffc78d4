"""The description of a training run, in either config dialect.

A config is translated once (``plan_from_yacs``, ``plan_from_lazy``), checked once (``validate``)
and built once (:mod:`swinv2_backbone.d2.engine.training`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn, optim

from swinv2_backbone.d2.config.options import Dialect
from swinv2_backbone.d2.config.sections import (
    OPTIONS,
    Augmentation,
    Backbone,
    Clipping,
    Data,
    Evaluation,
    MaskTransformer,
    Model,
    Optimizer,
    Precision,
    Run,
    Schedule,
    Step,
    UPerNet,
)

_REPLACED_BY_JITTER = tuple(
    f"augmentation.{name}" for name in ("min_size", "max_size", "sample_style", "crop")
)


class Factories(NamedTuple):
    """Functions that build the parts for which a config names a class or function."""

    model: Callable[[], nn.Module]
    optimizer: Callable[[nn.Module], optim.Optimizer]
    schedule: Callable[[optim.Optimizer], Any]  # returns an LRScheduler or fvcore's ParamScheduler
    train_loader: Callable[[], Iterable]  # a batch has the images of one forward
    test_loader: Callable[[str, bool], Iterable]  # (dataset, True: original image size)
    evaluator: Callable[[str, Path], Any]  # (dataset, folder for its results)


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """A training run, as a config of either dialect describes it.

    Two plans are equal if they describe the same run, whichever dialect they come from.
    Options without effect, such as the size of a disabled crop, are not compared.

    Attributes:
        dialect: dialect of the config; messages use its keys.
        config: private copy of the config.
        translate: function that makes a plan from another config of this dialect.
        places: replacement for each pair of braces in a key, such as the path of the backbone.
        factories: builders of the parts that the config describes by code.
        unreadable: errors found during the translation, one message each.
    """

    backbone: Backbone = Backbone()
    upernet: UPerNet = UPerNet()
    mask_transformer: MaskTransformer = MaskTransformer()
    model: Model = Model()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    precision: Precision = Precision()
    clipping: Clipping = Clipping()
    step: Step = Step()
    data: Data = Data()
    augmentation: Augmentation = Augmentation()
    evaluation: Evaluation = Evaluation()
    run: Run = Run()
    dialect: Dialect = field(default=Dialect.YACS)
    config: Any = field(default=None, repr=False)
    translate: Callable[[Any], TrainingPlan] | None = field(default=None, repr=False)
    places: Mapping[str, str] = field(default_factory=dict, repr=False)
    factories: Factories | None = field(default=None, repr=False)
    unreadable: tuple[str, ...] = field(default=(), repr=False)

    def __getitem__(self, name: str) -> Any:
        """Return the value of an option by its dotted name."""
        section, _, last = name.partition(".")
        return getattr(getattr(self, section), last)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, TrainingPlan) and self.effective() == other.effective()

    __hash__ = None  # type: ignore[assignment]  # plans hold tuples of anything

    def effective(self) -> dict[str, Any]:
        """Return the options that take effect, by their dotted names."""
        off = ["backbone."] if not self.places.get("backbone", "") else []
        off += ["upernet."] if self.model.architecture != "SemanticSegmentor" else []
        off += ["mask_transformer."] if self.model.architecture != "MaskTransformer" else []
        off += ["clipping."] if not self.clipping.enabled else []
        off += ["augmentation.lsj_"] if not self.augmentation.lsj else [*_REPLACED_BY_JITTER]
        off += ["augmentation.crop_"] if not self.augmentation.crop else []
        off += ["optimizer.momentum", "optimizer.nesterov"] if self.optimizer.name != "SGD" else []
        name = self.schedule.name
        off += ["schedule.steps", "schedule.gamma"] if name != "WarmupMultiStepLR" else []
        off += ["schedule.poly_power"] if name != "WarmupPolyLR" else []
        names = (name for name in OPTIONS if not name.startswith(tuple(off)))
        return {name: self[name] for name in names if name != "data.class_names"}  # derived

    def key(self, name: str) -> str:
        """Return the key of an option in the dialect of the config."""
        return OPTIONS[name].key(self.dialect).format_map(self.places)

    def setting(self, name: str, value: Any) -> str:
        """Return an override of an option in the dialect of the config."""
        return self.dialect.setting(self.key(name), value)

    def replaced(self, values: Mapping[str, Any]) -> TrainingPlan:
        """Return the plan of a copy of the config in which some options have other values."""
        assert self.translate is not None
        config = self.dialect.copy(self.config)
        for name, value in values.items():
            *path, last = self.key(name).split(".")
            node = config
            for part in path:
                node = node[part]
            node[last] = list(value) if isinstance(node.get(last), list) else value
        return self.translate(config)
