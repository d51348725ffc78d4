"""Detectron2's checkpointer, with weights of any layout and nothing unsafe."""

from __future__ import annotations

from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import nn

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.checkpoints.checkpoint import interpret
from swinv2_backbone.checkpoints.download import fetch
from swinv2_backbone.checkpoints.files import METADATA, Content, read_file, write_file
from swinv2_backbone.checkpoints.load import find_backbone, load_checkpoint, load_into
from swinv2_backbone.checkpoints.save import notes_of
from swinv2_backbone.windows import Size

OURS = ("swinv2://", "http://", "https://")  # other schemes are Detectron2's


class Checkpointer(DetectionCheckpointer):
    """Loads weights as :func:`swinv2_backbone.load_checkpoint` does; saves and resumes safely.

    ``load(path, checkpointables=[])``, which is what ``resume_or_load`` does with
    ``MODEL.WEIGHTS``, takes weights of any layout and for any part of the detector.  ``load(path)``
    resumes a training of one's own, and demands every tensor.  A detector without a SwinV2 is left
    to Detectron2's ways, but for .pkl files, which are refused.

    Args:
        model, save_dir, save_to_disk, checkpointables: as for Detectron2's.
        partial: see :func:`swinv2_backbone.load_checkpoint`.
        evaluated: the model whose weights files hold as ``model``; default: ``model``.

    Attributes:
        report: one line on what the last load took from which file.
        trained_windows: of the weights that were loaded, (height, width) per stage; None if the
            file does not say.
    """

    def __init__(
        self,
        model: nn.Module,
        save_dir: str = "",
        *,
        save_to_disk: bool | None = None,
        partial: bool = False,
        evaluated: nn.Module | None = None,
        **checkpointables,
    ):
        super().__init__(model, save_dir, save_to_disk=save_to_disk, **checkpointables)
        self.partial, self.evaluated = partial, evaluated
        self.report = "nothing (random initialisation)"
        self.trained_windows: tuple[Size, ...] | None = None
        self._complete = False

    def load(self, path: str, checkpointables: list[str] | None = None) -> dict:
        """Load weights (``checkpointables=[]``) or resume (None: everything in the file).

        Raises:
            OSError: there is no such file.
            ValueError: the file is refused; see :func:`swinv2_backbone.load_checkpoint`.
        """
        self._path = path
        if not path or checkpointables != [] or not _has_swinv2(self.model):
            if path and "://" not in path and not Path(path).is_file():
                raise FileNotFoundError(f"no file {path!r}")
            return super().load(path, checkpointables)
        if comm.get_local_rank() == 0:
            self._local(path)  # one process of a machine fetches, the others find it
        comm.synchronize()
        report = load_checkpoint(self.model, self._local(path), partial=self.partial)
        self._complete = report.complete
        self.trained_windows = report.normaliser.trained_windows
        self.report = (
            f"{len(report.used)} tensors from {path} (layout: {report.layout}); "
            f"{len(report.new)} new, {len(report.missing)} missing, "
            f"{len(report.reshaped)} of another shape"
        )
        return {}

    def require_complete(self) -> None:
        """Raise ValueError unless the last load gave every tensor: a use without training."""
        if not self._complete:
            raise ValueError(f"the weights are not those of this model: {self.report}")

    def save(self, name: str, **kwargs) -> None:
        """Save everything, and what normalises the position bias."""
        if self.evaluated is not None:
            kwargs["model"] = self.evaluated.state_dict()
        super().save(name, **kwargs, **_notes(self.model))

    def _local(self, path: str) -> Path:
        if "://" in path and not path.startswith(OURS):
            path = self.path_manager.get_local_path(path)
        return fetch(path)

    def _load_file(self, filename: str) -> dict:
        self._content = read_file(Path(filename), extras=False)
        value = self._content.value
        if not isinstance(value, dict):
            raise ValueError(f"{filename} holds no training: {type(value).__name__}")
        return value if isinstance(value.get("model"), dict) else {"model": value}

    def _load_model(self, checkpoint: dict):
        if not _has_swinv2(self.model):
            incompatible = super()._load_model(checkpoint)
            absent = len(incompatible.missing_keys) + len(incompatible.incorrect_shapes)
            total = len(self.model.state_dict())
            self._complete = not absent
            self.report = f"{total - absent} of {total} tensors from {self._path}"
            return incompatible
        averaged = "average" in checkpoint and "average" not in self.checkpointables
        if averaged and "trainer" in self.checkpointables:
            raise ValueError(
                f"{self._path} is of a training with averaged weights: go on with "
                "SOLVER.EMA.ENABLED True (train.ema.enabled=true), or start from the average, with "
                "MODEL.WEIGHTS (train.init_checkpoint) and without --resume"
            )
        content = Content(checkpoint.pop("model"), self._content.metadata)
        found = load_into(self.model, interpret(Path(self._path), content), complete=True)
        self._complete = True
        self.trained_windows = found.normaliser.trained_windows
        self.report = f"{len(found.used)} tensors from {self._path}"
        return None  # nothing is missing or left over


def save_weights(model: nn.Module, path: Path) -> None:
    """Write a model's weights alone, whole or not at all; what is there is replaced."""
    write_file(path, {"model": model.state_dict(), **_notes(model)}, {}, overwrite=True)


def _notes(model: nn.Module) -> dict:
    """What a file says of the backbone beside its weights."""
    return {METADATA: notes_of(find_backbone(model)[1])} if _has_swinv2(model) else {}


def _has_swinv2(model: nn.Module) -> bool:
    return any(isinstance(part, SwinV2) for part in model.modules())
