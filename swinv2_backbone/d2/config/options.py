"""A training option: its key in each config dialect, its default, its check and its meaning."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import Any, NamedTuple

# A check returns the requirement that a value violates, worded to follow "must be", or "".
Check = Callable[[Any], str]


class Dialect(Enum):
    """The two ways to write a config."""

    YACS = "YAML"
    LAZY = "LazyConfig"

    def setting(self, key: str, value: Any) -> str:
        """Return an override of a key as it is written on the command line."""
        return f"{key} {value}" if self is Dialect.YACS else f"{key}={value}"

    def copy(self, config: Any) -> Any:
        """Return a copy of a config, so that the user's config is never changed."""
        config = copy.deepcopy(config)
        if self is Dialect.YACS:
            config.defrost()
        return config


class Option(NamedTuple):
    """One field of a :class:`swinv2_backbone.d2.config.plan.TrainingPlan`.

    Attributes:
        name: dotted name in the plan, such as "schedule.max_iter".
        yacs, lazy: key in each dialect; "" where a dialect has none. Braces stand for a place that
            depends on the model, such as the path of the backbone.
        default: default value, in both dialects unless ``lazy_default`` differs.
        doc: one sentence for the tables of the documentation.
        check: requirement on a value.
    """

    name: str
    yacs: str
    lazy: str
    default: Any
    lazy_default: Any
    doc: str
    check: Check

    def key(self, dialect: Dialect) -> str:
        return self.yacs if dialect is Dialect.YACS else self.lazy

    def default_in(self, dialect: Dialect) -> Any:
        return self.default if dialect is Dialect.YACS else self.lazy_default


_SAME = object()


def option(
    default: Any, yacs: str, lazy: str, check: Check, doc: str, *, lazy_default: Any = _SAME
) -> Any:
    """Declare a field of a section of the plan."""
    lazy_default = default if lazy_default is _SAME else lazy_default
    about = {"yacs": yacs, "lazy": lazy, "check": check, "doc": doc, "lazy_default": lazy_default}
    return dataclasses.field(default=default, metadata=about)


def options_of(section: type, name: str) -> Iterator[Option]:
    """Yield the options that a section of the plan declares."""
    for field in dataclasses.fields(section):
        yield Option(name=f"{name}.{field.name}", default=field.default, **field.metadata)


def plain(value: Any) -> Any:
    """Return a value of either dialect with every sequence as a tuple, for comparison."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(plain(entry) for entry in value)
    return value


# ---- Checks


def one_of(*allowed: str) -> Check:
    return lambda value: "" if value in allowed else f"one of {', '.join(allowed)}"


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def integer(least: int) -> Check:
    """Require an integer of at least ``least``."""
    return lambda v: "" if _is_int(v) and v >= least else f"an integer, at least {least}"


def number(expected: str, holds: Callable[[float], bool]) -> Check:
    """Require a finite number for which ``holds`` is true; ``expected`` describes it in words."""

    def check(value: Any) -> str:
        is_number = _is_int(value) or isinstance(value, float)
        return "" if is_number and math.isfinite(value) and holds(value) else expected

    return check


def flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "True or False"


def text(value: Any) -> str:
    return "" if isinstance(value, str) else "a string"


def only(value: Any) -> Check:
    return lambda given: "" if given == value else f"{value}"


def sequence(entry: Check, *, least: int = 0) -> Check:
    """Require a tuple of at least ``least`` values that all pass ``entry``."""

    def check(value: Any) -> str:
        if not isinstance(value, tuple) or len(value) < least:
            return f"a sequence of at least {least} values" if least else "a sequence"
        faults = [fault for part in value if (fault := entry(part))]
        return f"a sequence in which each value is {faults[0]}" if faults else ""

    return check


def either(*checks: Check) -> Check:
    """Require a value that passes one of the checks."""

    def check(value: Any) -> str:
        faults = [each(value) for each in checks]
        return " or ".join(dict.fromkeys(faults)) if all(faults) else ""

    return check


def optional(check: Check) -> Check:
    return lambda value: "" if value is None or not check(value) else f"None or {check(value)}"


def anything(value: Any) -> str:
    return ""


positive = number("a number above 0", lambda value: value > 0)
not_negative = number("a number, at least 0", lambda value: value >= 0)
share = number("in [0, 1)", lambda value: 0 <= value < 1)
factor = number("in (0, 1]", lambda value: 0 < value <= 1)
