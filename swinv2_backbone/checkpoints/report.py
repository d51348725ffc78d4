"""The report of loading a checkpoint, as a short table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from swinv2_backbone.checkpoints.pretrained_window import PretrainedWindows

SHOWN = 20  # names in a message; the rest are counted


@dataclass
class LoadReport:
    """The tensors that were loaded from a checkpoint, and those that were not; printed as a table.

    Attributes:
        source: the file.
        layout: the name of its layout.
        pretrained_windows: the pretrained window of each stage, and their source.
        used: tensors of the model that were loaded.
        new: tensors that such a file does not contain, and that keep their initial values: output
            norms, and tensors outside the backbone.
        missing: tensors that the file should have; only with ``partial=True``.
        reshaped: tensors outside the backbone that keep their initial values because their shape
            in the file differs, with both shapes.
        dropped: tensors of the file that are deliberately not loaded, each with the reason.
        unexpected: tensors of the file that match no tensor of a SwinV2; only with
            ``partial=True``.
        stem: how the patch embedding was changed to another number of channels; None if it was not.
        notes: remarks, such as a conversion of dtypes.
        unusual: tensors with values out of all proportion, each with one of them.
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
    stem: str | None = None
    notes: list[str] = field(default_factory=list)
    unusual: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """True if every tensor of the model was loaded from the file."""
        return not (self.new or self.missing or self.reshaped)

    def __str__(self) -> str:
        total = len(self.used) + len(self.new) + len(self.missing) + len(self.reshaped)
        rows = [
            ("weights", self.source),
            ("layout", self.layout),
            ("pretrained windows", str(self.pretrained_windows)),
            ("used", f"{len(self.used)} of the model's {total} tensors"),
            ("stem", self.stem or ""),
            *[("new", text) for text in _new_groups(self.new)],
            ("missing", some(self.missing)),
            ("reshaped", some(self.reshaped)),
            *[
                ("dropped", f"{count} x {reason}")
                for reason, count in Counter(self.dropped.values()).items()
            ],
            ("unexpected", some(self.unexpected)),
            *[("note", text) for text in self.notes],
            *[("unusual", text) for text in self.unusual[:SHOWN]],
        ]
        return "\n".join(f"{title:<18} {text}" for title, text in rows if text)


def some(names: list[str]) -> str:
    """Join the first names of a list, and count the rest."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more


def group(name: str) -> str:
    """Return the module of a tensor, such as ``roi_heads.box_head.*``; its name if it has none."""
    owners = name.split(".")[:-1][:2]
    return ".".join(owners).rstrip("0123456789.") + ".*" if owners else name


def _new_groups(names: list[str]) -> list[str]:
    """Describe new output norms and new tensors outside the backbone, in one line each."""
    norms = [name for name in names if ".norms.res" in f".{name}"]
    outputs = sorted({name.split(".")[-2] for name in norms})
    others = Counter(group(name) for name in names if name not in norms)
    listed = [f"{name} ({count})" for name, count in others.items()]
    return [
        *([f"output norms of {', '.join(outputs)}, which start from 1 and 0"] if norms else []),
        *([f"not in the file, as initialized: {some(listed)}"] if others else []),
    ]
