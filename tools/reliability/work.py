"""What a case works with: its folder, its count of tries, and what was lost."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from reliability.judging import different, has_traceback, repeated_metrics
from reliability.processes import Command, FreshCommand, Prepare
from reliability.scene import ITERATIONS, Scene, write_scene


class NotRunError(Exception):
    """The machine cannot run a case, for the reason that the message gives."""


@dataclass
class Work:
    """The state of a case that runs.

    Attributes:
        folder: Folder of the case; what it wrote stays there if something was lost.
        full: True for the long form.
        times: Number of failures that were caused.
        lost: What should have held and did not.
    """

    folder: Path
    full: bool = False
    times: int = 0
    lost: list[str] = field(default_factory=list)
    chance: random.Random = field(default_factory=lambda: random.Random(0))

    @cached_property
    def scene(self) -> Scene:
        return write_scene(self.folder / "scene")

    def expect(self, holds: object, lost: str) -> bool:
        """Count as lost what does not hold; returns True if it holds."""
        if not holds:
            self.lost.append(lost)
        return bool(holds)

    def train(
        self,
        name: str,
        dialect: str = "yaml",
        *flags: str,
        prepare: Prepare | None = None,
        **changes: Any,
    ) -> Command:
        """Start a training in the folder ``name``, whose console is the file beside it."""
        words = self.scene.command(self.folder / name, dialect, *flags, **changes)
        return Command(words, self.folder / f"{name.replace('/', '_')}.txt", prepare)

    def fresh(
        self, name: str, *flags: str, prepare: Prepare | None = None, **changes: Any
    ) -> FreshCommand:
        """Start a YAML training as a new Python process, for several processes."""
        words = self.scene.command(self.folder / name, "yaml", *flags, **changes)
        return FreshCommand(words, self.folder / f"{name}.txt", prepare)

    def finish(self, name: str, dialect: str = "yaml", **changes: Any) -> Command:
        """Resume a training to its end, and compare it with an uninterrupted one."""
        command = self.train(name, dialect, "--resume", **changes)
        self.ends_equal(command, name, dialect, **changes)
        return command

    def ends_equal(
        self,
        command: Command,
        name: str,
        dialect: str = "yaml",
        reference: Path | None = None,
        **changes: Any,
    ) -> None:
        """Wait for a training, whose end must be that of an uninterrupted one.

        Args:
            reference: the folder of that; default: one that is run with the same length.
        """
        code = command.wait()
        command.end()
        self.expect(not command.hung, f"{name}: hangs")
        if self.expect(code == 0, f"{name}: ends with {code}: {command.last}"):
            self.expect(not has_traceback(command.text), f"{name}: a traceback")
            length = changes.get("iterations", ITERATIONS)
            reference = reference or self.reference(dialect, iterations=length)
            found = different(reference, self.folder / name)
            self.expect(not found, f"{name}: differs from the uninterrupted training: {found}")
            again = repeated_metrics(self.folder / name)
            self.expect(not again, f"{name}: metrics.json has twice {', '.join(again[:3])}")

    def reference(self, dialect: str = "yaml", **changes: Any) -> Path:
        """Return the folder of an uninterrupted training, which is run once."""
        name = "_".join(["whole", dialect, *(f"{key}{value}" for key, value in changes.items())])
        if not (self.folder / name / "model_final.pth").exists():
            command = self.train(name, dialect, **changes)
            assert command.wait() == 0, command.text
            command.end()
        return self.folder / name


def stated(times: int, what: str, more: Mapping[str, int] | None = None) -> str:
    """Return counts in words: ``8 kills: 6 resumed, 2 started anew``."""
    rest = ", ".join(f"{count} {name}" for name, count in (more or {}).items())
    return f"{times} {what}" + (f": {rest}" if rest else "")
