"""Detectron2's checkpointer, extended to load any layout safely and to write files atomically."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import Tensor, nn

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.checkpoints.fetch import FETCHED, fetch
from swinv2_backbone.checkpoints.files import METADATA, Content, read_file, write_file
from swinv2_backbone.checkpoints.load import load_checkpoint, load_into
from swinv2_backbone.checkpoints.read import interpret
from swinv2_backbone.checkpoints.save import notes_of
from swinv2_backbone.checkpoints.target import find_backbone
from swinv2_backbone.d2.engine.finite import REMEDY, describe_nonfinite
from swinv2_backbone.d2.engine.last_checkpoint import (
    checkpoints_in,
    last_good_checkpoint,
    tag_checkpoint,
)
from swinv2_backbone.packing import Size
from swinv2_backbone.source_digest import split_digest

NOTHING_READ = (Path(), Content(None, {}))


class Checkpointer(DetectionCheckpointer):
    """A checkpointer that loads weights as :func:`swinv2_backbone.load_checkpoint` does.

    ``load(path, checkpointables=[])``, which ``resume_or_load`` calls for initial weights, accepts
    any layout and any part of the detector. ``load(path)`` resumes a run of this package and
    requires every tensor. A detector without a SwinV2 is loaded as in Detectron2, except that .pkl
    files are an error.

    A checkpoint exists whole or not at all, and so does the file that names the last one. If the
    last one is damaged, missing or not finite, training resumes from the one before it.

    Args:
        model, save_dir, save_to_disk, checkpointables: as for ``DetectionCheckpointer``.
        partial, stem: see :func:`swinv2_backbone.load_checkpoint`; unused when resuming.
        evaluated: model whose weights are saved as ``model``; default: ``model``.

    Attributes:
        report: one line about the last load: how many tensors came from which file.
        resumed: True if the last ``resume_or_load`` found a checkpoint to resume from.
        trained_windows: windows with which the loaded weights were trained, (height, width) per
            stage; None if the file does not have them.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        partial: bool = False,
        stem: str | None = None,
        evaluated: nn.Module | None = None,
        **checkpointables: Any,
    ):
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        if "://" in str(save_dir):
            raise ValueError(f"checkpoints are written to local folders, not {save_dir!r}")
        self.partial, self.stem = partial, stem
        self.evaluated = self.model if evaluated is None else evaluated
        self.resumed, self._read = False, NOTHING_READ
        self.report = "nothing (random initialization)"
        self.trained_windows: tuple[Size, ...] | None = None
        self._complete = False

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """Load weights (``checkpointables=[]``) or resume (None: everything in the file).

        Raises:
            OSError: the file does not exist.
            ValueError: the file cannot be used, or does not have the digest in ``path``; see
                :func:`swinv2_backbone.load_checkpoint`.
        """
        self._path = path
        if path and checkpointables == [] and _has_swinv2(self.model):
            self._load_weights(path)
            return {}
        if split_digest(path)[1] is not None:
            path = str(self.local_path(path))
        if path and "://" not in path and not Path(path).is_file():
            raise FileNotFoundError(f"no file {path!r}")
        return super().load(path, checkpointables)

    def require_complete(self) -> None:
        """Raise ValueError unless the last load had every tensor, as evaluation requires."""
        if not self._complete:
            raise ValueError(f"the weights do not cover the whole model: {self.report}")

    def save(self, name: str, **kwargs: Any) -> None:
        """Save everything, with the pretrained windows of the position bias, as ``name``.pth.

        Args:
            kwargs: additional entries; ``model`` replaces the state of the model.

        Raises:
            OSError: the file could not be written. Earlier checkpoints are unchanged.
            FloatingPointError: weights or the state of the optimizer are not finite. Nothing was
                written.
        """
        if not self.save_dir or not self.save_to_disk:
            return
        path = Path(self.save_dir, f"{name}.pth")
        content = {
            **({} if "model" in kwargs else {"model": self.evaluated.state_dict()}),
            **{key: one.state_dict() for key, one in self.checkpointables.items()},
            **kwargs,
            **_notes(self.model),
        }
        if text := self._nonfinite(content):
            raise FloatingPointError(
                f"{path} is not saved, and the earlier checkpoints are unchanged: {text}; {REMEDY}"
            )
        self.logger.info(f"Saving checkpoint to {path}")
        try:
            write_file(path, content, {}, overwrite=True)
            self.tag_last_checkpoint(path.name)
        except OSError as error:
            raise OSError(f"{error}; the earlier checkpoints are unchanged") from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        tag_checkpoint(Path(self.save_dir), last_filename_basename)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict:
        """Resume from the last good checkpoint in the folder; without one, load weights.

        Raises:
            ValueError: there are checkpoints to resume from, but all are damaged.
        """
        found = None
        if resume:
            found, content = last_good_checkpoint(Path(self.save_dir), self._read_training)
            self._read = (found, content) if found and content else NOTHING_READ
        self.resumed = found is not None
        if found:
            return self.load(str(found))
        if resume:
            self.logger.warning(
                f"Nothing to resume in {self.save_dir!r}: starting from {path or 'random weights'}"
            )
        return self.load(path, checkpointables=[])

    def has_checkpoint(self) -> bool:
        return bool(checkpoints_in(Path(self.save_dir)))

    def get_checkpoint_file(self) -> str:
        return next((str(path) for path in checkpoints_in(Path(self.save_dir))), "")

    def local_path(self, path: str) -> Path:
        """Return the local path of weights; download them if necessary, and check their digest."""
        place, digest = split_digest(path)
        if "://" in place and not place.startswith(FETCHED):  # one that Detectron2 opens
            place = self.path_manager.get_local_path(place)
            path = place if digest is None else f"{place}#sha256={digest}"
        return fetch(path)

    def _read_training(self, path: Path) -> Content:
        """Read a file to resume from.

        Raises:
            ValueError: the file has only weights, or values that are not finite.
        """
        content = read_file(path, extras=False)
        if "trainer" in self.checkpointables and "trainer" not in content.value:
            raise ValueError(
                f"{path} has weights but no training state (start from them, with MODEL.WEIGHTS or "
                "train.init_checkpoint)"
            )
        if text := self._nonfinite(content.value):
            raise ValueError(f"{path}: {text}")
        return content

    def _nonfinite(self, content: dict[str, Any]) -> str:
        """Describe what is not finite in a checkpoint: weights, their average, the optimizer."""
        names = [name for name, _ in self.model.named_parameters()]
        trained = _part(content, "average", "trained")
        optimizer = _part(content, "trainer", "optimizer", "state") or _part(
            content, "trainer", "_trainer", "optimizer", "state"
        )
        weights = _part(content, "model")
        return describe_nonfinite(weights, names, optimizer=optimizer) or describe_nonfinite(
            trained, names
        )

    def _load_weights(self, path: str) -> None:
        """Load weights of any layout into a detector with a SwinV2."""
        if comm.get_local_rank() == 0:
            self.local_path(path)  # one process per machine downloads the file for the others
        comm.synchronize()
        report = load_checkpoint(
            self.model, self.local_path(path), partial=self.partial, stem=self.stem
        )
        self._complete = report.complete
        self.trained_windows = report.pretrained_windows.trained_windows
        self.report = (
            f"{len(report.used)} tensors from {path} (layout: {report.layout}); "
            f"{len(report.new)} new, {len(report.missing)} missing, "
            f"{len(report.reshaped)} of another shape"
            + (f"; stem {report.stem}" if report.stem else "")
        )

    def _load_file(self, filename: str) -> dict:
        path, self._content = self._read
        self._read = NOTHING_READ
        if path != Path(filename):
            self._content = read_file(Path(filename), extras=False)
        value = self._content.value
        if not isinstance(value, dict):
            raise ValueError(f"{filename} has no training state: it is a {type(value).__name__}")
        return value if isinstance(value.get("model"), dict) else {"model": value}

    def _load_model(self, checkpoint: dict) -> Any:
        if not _has_swinv2(self.model):
            return self._load_other_model(checkpoint)
        averaged = "average" in checkpoint and "average" not in self.checkpointables
        if averaged and "trainer" in self.checkpointables:
            raise ValueError(
                f"{self._path} was saved with averaged weights: resume it with "
                "SOLVER.EMA.ENABLED True (train.ema.enabled=true), or start from the average, with "
                "MODEL.WEIGHTS (train.init_checkpoint) and without --resume"
            )
        content = Content(checkpoint.pop("model"), self._content.metadata)
        found = load_into(self.model, interpret(Path(self._path), content), complete=True)
        self._complete = True
        self.trained_windows = found.pretrained_windows.trained_windows
        self.report = f"{len(found.used)} tensors from {self._path}"
        return None  # no incompatible keys

    def _load_other_model(self, checkpoint: dict) -> Any:
        """Load a model without a SwinV2 as Detectron2 does."""
        incompatible = super()._load_model(checkpoint)
        absent = len(incompatible.missing_keys) + len(incompatible.incorrect_shapes)
        total = len(self.model.state_dict())
        self._complete = not absent
        self.report = f"{total - absent} of {total} tensors from {self._path}"
        return incompatible


def _part(content: Any, *keys: str) -> dict[str, Any]:
    """Return a part of nested dicts; an empty one if it is not there."""
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content if isinstance(content, dict) else {}


def save_weights(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Write only the state of a model, whole or not at all; an existing file is replaced."""
    write_file(path, {"model": state, **_notes(model)}, {}, overwrite=True)


def _notes(model: nn.Module) -> dict[str, Any]:
    """Return the metadata about the backbone that is saved beside its weights."""
    return {METADATA: notes_of(find_backbone(model)[1])} if _has_swinv2(model) else {}


def _has_swinv2(model: nn.Module) -> bool:
    return any(isinstance(part, SwinV2) for part in model.modules())
