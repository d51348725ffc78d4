"""Training options, the plan that holds them, and the two config dialects translated to it."""

from swinv2_backbone.d2.config.lazy import load_lazy_config, plan_from_lazy
from swinv2_backbone.d2.config.options import Dialect, Option
from swinv2_backbone.d2.config.plan import Factories, TrainingPlan
from swinv2_backbone.d2.config.rules import ConfigError, validate
from swinv2_backbone.d2.config.sections import OPTIONS
from swinv2_backbone.d2.config.yacs import add_swinv2_config, load_config, plan_from_yacs

__all__ = [
    "OPTIONS",
    "ConfigError",
    "Dialect",
    "Factories",
    "Option",
    "TrainingPlan",
    "add_swinv2_config",
    "load_config",
    "load_lazy_config",
    "plan_from_lazy",
    "plan_from_yacs",
    "validate",
]
