"""Loading weights with a plain account of what was loaded."""

from __future__ import annotations

from detectron2.checkpoint import DetectionCheckpointer


class Checkpointer(DetectionCheckpointer):
    """Detectron2's checkpointer, but a file of which nothing fits the model is an error.

    Attributes:
        report: one line on what the last load took from which file.
    """

    report = "nothing (random initialisation)"
    _complete = False

    def load(self, path: str, *args, **kwargs) -> dict:
        self._path = path
        return super().load(path, *args, **kwargs)

    def require_complete(self) -> None:
        """Raise ValueError unless the last load gave every tensor: a use without training."""
        if not self._complete:
            raise ValueError(f"the weights are not those of this model: {self.report}")

    def _load_model(self, checkpoint: dict):
        given = list(checkpoint["model"])
        incompatible = super()._load_model(checkpoint)
        wrong_shape = [name for name, _, _ in incompatible.incorrect_shapes]
        missing = [name for name in incompatible.missing_keys if name not in wrong_shape]
        expected = len(self.model.state_dict())
        loaded = expected - len(missing) - len(wrong_shape)
        if len(given) - len(incompatible.unexpected_keys) - len(wrong_shape) <= 0:
            raise ValueError(
                f"none of the {len(given)} tensors in {self._path} fits this model, which expects "
                f"names like {next(iter(self.model.state_dict()))!r}; the file has names like "
                f"{(given or [None])[0]!r}"
            )
        self._complete = not missing and not wrong_shape
        self.report = (
            f"{loaded} of {expected} tensors from {self._path}; {len(missing)} missing, "
            f"{len(wrong_shape)} of another shape, "
            f"{len(incompatible.unexpected_keys)} unexpected"
        )
        return incompatible
