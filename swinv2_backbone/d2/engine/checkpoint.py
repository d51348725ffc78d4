"""Detectron2's checkpointer, with weights of any layout, nothing unsafe and nothing lost."""

from __future__ import annotations

from pathlib import Path

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.utils import comm
from torch import Tensor, nn

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.checkpoints.fetch import fetch
from swinv2_backbone.checkpoints.files import METADATA, Content, read_file, write_file
from swinv2_backbone.checkpoints.load import load_checkpoint, load_into
from swinv2_backbone.checkpoints.read import interpret
from swinv2_backbone.checkpoints.save import notes_of
from swinv2_backbone.checkpoints.target import find_backbone
from swinv2_backbone.windows import Size

TAG = "last_checkpoint"  # the file that names the last one, as Detectron2 has it
OURS = ("swinv2://", "http://", "https://")  # other schemes are Detectron2's


class Checkpointer(DetectionCheckpointer):
    """Loads weights as :func:`swinv2_backbone.load_checkpoint` does; saves and resumes safely.

    ``load(path, checkpointables=[])``, which is what ``resume_or_load`` does with
    ``MODEL.WEIGHTS``, takes weights of any layout and for any part of the detector.  ``load(path)``
    resumes a training of one's own, and demands every tensor.  A detector without a SwinV2 is left
    to Detectron2's ways, but for .pkl files, which are refused.

    A checkpoint is there whole or not at all (durable.py), and so is the note which is the last.
    If that one is damaged or gone, a training is resumed from the one before it.

    Args:
        model, save_dir, save_to_disk, checkpointables: as for Detectron2's.
        partial: see :func:`swinv2_backbone.load_checkpoint`.
        evaluated: the model whose weights files hold as ``model``; default: ``model``.

    Attributes:
        report: one line on what the last load took from which file.
        resumed: whether the last ``resume_or_load`` found a training to go on with.
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
        if "://" in str(save_dir):
            raise ValueError(f"checkpoints are written to local folders, not {save_dir!r}")
        self.partial = partial
        self.evaluated = self.model if evaluated is None else evaluated
        self.resumed, self._read = False, (Path(), Content(None, {}))
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
            self.local_path(path)  # one process of a machine fetches, the others find it
        comm.synchronize()
        report = load_checkpoint(self.model, self.local_path(path), partial=self.partial)
        self._complete = report.complete
        self.trained_windows = report.pretrained_windows.trained_windows
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
        """Save everything, and what normalises the position bias, as ``name``.pth.

        Args:
            kwargs: more to save; ``model`` instead of the model's own state.

        Raises:
            OSError: it could not be written.  What was there before still is.
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
        self.logger.info(f"Saving checkpoint to {path}")
        try:
            write_file(path, content, {}, overwrite=True)
            self.tag_last_checkpoint(path.name)
        except OSError as error:
            raise OSError(f"{error}; the checkpoints before it are as they were") from error

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        write_text(Path(self.save_dir, TAG), last_filename_basename)

    def resume_or_load(self, path: str, *, resume: bool = True) -> dict:
        """Go on from the last good checkpoint in the folder; without one, load weights.

        Raises:
            ValueError: there are checkpoints to go on from, but all are damaged.
        """
        found = self._last_good() if resume else ""
        self.resumed = bool(found)
        if found:
            return self.load(found)
        if resume:
            self.logger.warning(
                f"Nothing to resume in {self.save_dir!r}: starting from {path or 'random weights'}"
            )
        return self.load(path, checkpointables=[])

    def has_checkpoint(self) -> bool:
        return bool(self._candidates())

    def get_checkpoint_file(self) -> str:
        return next((str(path) for path in self._candidates()), "")

    def _candidates(self) -> list[Path]:
        """The checkpoints of a training in the folder: the last first, then from new to old."""
        folder = Path(self.save_dir)
        found = [*folder.glob("model_" + "[0-9]" * 7 + ".pth"), *folder.glob("model_final.pth")]
        found.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        try:
            tagged = (folder / TAG).read_text().strip()
        except (OSError, UnicodeDecodeError):
            tagged = ""
        if tagged and Path(tagged).name == tagged:
            found = [folder / tagged, *(path for path in found if path.name != tagged)]
        elif found:
            self.logger.warning(f"{folder / TAG} does not name a checkpoint")
        return found

    def _last_good(self) -> str:
        """The main process looks, and all take what it found."""
        found, failure = "", None
        if comm.is_main_process():
            failures = []
            for path in self._candidates():
                try:
                    self._read = path, self._training_in(path)
                    found = str(path)
                    break
                except (OSError, ValueError) as error:
                    failures.append(f"{path}: {error}")
                    self.logger.warning(f"This checkpoint is passed over: {error}")
            if failures and not found:
                failure = (
                    "there is nothing to resume from but what cannot be read (start anew without "
                    "--resume): " + "; ".join(failures)
                )
            elif failures:
                self.logger.warning(f"Going back to the checkpoint before: {found}")
        found, failure = comm.all_gather((found, failure))[0]
        if failure:
            raise ValueError(failure)
        absent = comm.all_gather(bool(found) and not Path(found).is_file())
        if any(absent):
            raise ValueError(
                f"{found} is not there for the processes {[i for i, no in enumerate(absent) if no]}"
                ": all machines must see the same folder"
            )
        return found

    def _training_in(self, path: Path) -> Content:
        """What is in a file, which must be of a training if that is what is resumed."""
        content = read_file(path, extras=False)
        if "trainer" in self.checkpointables and "trainer" not in content.value:
            raise ValueError(
                f"{path} has weights but no state of a training (start from it, with MODEL.WEIGHTS "
                "or train.init_checkpoint)"
            )
        return content

    def local_path(self, path: str) -> Path:
        """Where weights are on this machine, fetched if they were not there."""
        if "://" in path and not path.startswith(OURS):
            path = self.path_manager.get_local_path(path)
        return fetch(path)

    def _load_file(self, filename: str) -> dict:
        path, self._content = self._read
        self._read = Path(), Content(None, {})
        if path != Path(filename):
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
        self.trained_windows = found.pretrained_windows.trained_windows
        self.report = f"{len(found.used)} tensors from {self._path}"
        return None  # nothing is missing or left over


def save_weights(model: nn.Module, state: dict[str, Tensor], path: Path) -> None:
    """Write the state of a model alone, whole or not at all; what is there is replaced."""
    write_file(path, {"model": state, **_notes(model)}, {}, overwrite=True)


def _notes(model: nn.Module) -> dict:
    """What a file says of the backbone beside its weights."""
    return {METADATA: notes_of(find_backbone(model)[1])} if _has_swinv2(model) else {}


def _has_swinv2(model: nn.Module) -> bool:
    return any(isinstance(part, SwinV2) for part in model.modules())
