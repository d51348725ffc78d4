"""What came of loading a checkpoint, for a reader in a hurry."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from swinv2_backbone.checkpoints.pretrained_window import PretrainedWindows

SHOWN = 20  # names in a message; the rest are counted


@dataclass
class LoadReport:
    """What a checkpoint gave to a model; printed, a short table.

    Attributes:
        source: the file.
        layout: the publisher whose names it has.
        pretrained_windows: the pretrained window of each stage, and its source.
        used: tensors of the model that were loaded.
        new: tensors that the file cannot have, and that keep their initial values: output norms,
            and what is around the backbone.
        missing: tensors that it should have, with ``partial=True``.
        reshaped: tensors around the backbone that keep their initial values, as the file has other
            shapes; with both shapes.
        dropped: tensors of the file that were left on purpose, each with the reason.
        unexpected: tensors of the file that nobody knows, with ``partial=True``.
        notes: anything else worth knowing.
    """

    source: str
    layout: str
    pretrained_windows: PretrainedWindows
    used: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Every tensor of the model was loaded: it can be used without training."""
        return not (self.new or self.missing or self.reshaped)

    def __str__(self) -> str:
        total = len(self.used) + len(self.new) + len(self.missing) + len(self.reshaped)
        rows = [
            ("weights", self.source),
            ("layout", self.layout),
            ("pretrained windows", str(self.pretrained_windows)),
            ("used", f"{len(self.used)} of the model's {total} tensors"),
            *[("new", text) for text in _new_groups(self.new)],
            ("missing", some(self.missing)),
            ("reshaped", some(self.reshaped)),
            *[
                ("dropped", f"{count} x {reason}")
                for reason, count in Counter(self.dropped.values()).items()
            ],
            ("unexpected", some(self.unexpected)),
            *[("note", text) for text in self.notes],
        ]
        return "\n".join(f"{title:<18} {text}" for title, text in rows if text)


def some(names: list[str]) -> str:
    """The first few of a list, and how many more there are."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def group(name: str) -> str:
    """What a tensor belongs to: ``roi_heads.box_head.*``; itself, if that is nothing."""
    owners = name.split(".")[:-1][:2]
    return ".".join(owners).rstrip("0123456789.") + ".*" if owners else name


def _new_groups(names: list[str]) -> list[str]:
    """Output norms, and what is around the backbone, in a line each."""
    norms = [name for name in names if ".norms.res" in f".{name}"]
    outputs = sorted({name.split(".")[-2] for name in norms})
    others = Counter(group(name) for name in names if name not in norms)
    listed = [f"{name} ({count})" for name, count in others.items()]
    return [
        *([f"output norms of {', '.join(outputs)}, which start from 1 and 0"] if norms else []),
        *([f"not in the file, as initialised: {some(listed)}"] if others else []),
    ]
