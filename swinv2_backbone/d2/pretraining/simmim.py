"""SimMIM pre-training in the training loop of the detectors: resumable and distributed."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from detectron2.engine import hooks
from detectron2.utils import comm
from torch import Tensor, nn

from swinv2_backbone.backbone import SwinV2
from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.checkpoints.pretrained_window import describe
from swinv2_backbone.d2.data.loading.loader import TrainLoader
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.engine.evaluate import Evaluate
from swinv2_backbone.d2.engine.hooks import standard_hooks
from swinv2_backbone.d2.engine.metrics import run_writers
from swinv2_backbone.d2.engine.parallel import parallel_model, shard_model
from swinv2_backbone.d2.engine.step import TrainingStep
from swinv2_backbone.d2.pretraining.masked import MaskedImages, SameImages
from swinv2_backbone.d2.pretraining.recipe import Recipe
from swinv2_backbone.d2.pretraining.reconstruction import FixedImages, draw_reconstructions
from swinv2_backbone.d2.solver.optimizer import parameter_groups
from swinv2_backbone.simmim import SimMIM
from swinv2_backbone.variants import PIXEL_MEAN, PIXEL_STD

CLIP_NORM = 5.0  # default of the Swin and SimMIM code
FINAL = "model_final.pth"
CHECKPOINTS_KEPT = 3  # in addition to the final one


class PretrainingModel(SimMIM):
    """A :class:`SimMIM` that takes batches of records, as Detectron2's models do."""

    mean: Tensor  # buffers
    std: Tensor

    def __init__(
        self,
        backbone: SwinV2,
        pixel_mean: Sequence[float] = PIXEL_MEAN,
        pixel_std: Sequence[float] = PIXEL_STD,
    ):
        super().__init__(backbone)
        for name, numbers in (("mean", pixel_mean), ("std", pixel_std)):
            value = torch.tensor(numbers, dtype=torch.float32)[:, None, None]
            self.register_buffer(name, value, persistent=False)

    # The training loop calls models with a batch of records; SimMIM takes tensors.
    def forward(self, batch: list[dict]) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the loss of a batch of records from :class:`MaskedImages`."""
        device = self.mean.device
        images = torch.stack([record["image"] for record in batch]).to(device)
        masks = torch.stack([record["mask"] for record in batch]).to(device)
        return {"loss_l1": super().forward((images - self.mean) / self.std, masks)}


class Pretraining:
    """A pre-training run, ready to start or to resume.

    The weights of ``backbone`` are trained in place. The initialization of new weights and drop
    path draw from PyTorch's default generator.

    Args:
        backbone: a backbone whose only output is that of its last stage.
        files: images to train on, see :func:`swinv2_backbone.d2.pretraining.masked.find_images`.
        output: folder for checkpoints, logs and pictures.
        recipe: options of the run.
        init, stem: weights to start from, and the rule for weights of another number of bands, as
            :func:`swinv2_backbone.load_checkpoint` takes them.
        resume: resume from the last checkpoint in ``output``, if there is one.
        device: "cuda" or "cpu"; default: a GPU if there is one.

    Raises:
        ValueError, OSError: the arguments are invalid or do not match.
    """

    def __init__(
        self,
        backbone: SwinV2,
        files: Sequence[str],
        output: str | os.PathLike,
        recipe: Recipe,
        *,
        init: str = "",
        stem: str | None = None,
        resume: bool = False,
        device: str | None = None,
    ):
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.recipe, self.output = recipe, Path(output)
        _check_channels(backbone, recipe)
        self.model = PretrainingModel(backbone, recipe.pixel_mean, recipe.pixel_std)
        _check(self.model, recipe, place)
        mapper = MaskedImages(recipe.image_size, recipe.mask_patch, recipe.mask_ratio, recipe.bands)
        self.fixed = FixedImages(files, mapper, recipe.seed)
        self.model.to(place).train()
        self.step = _build_step(self.model, files, mapper, recipe, self.output)
        self.checkpointer = Checkpointer(
            self.model,
            str(self.output),
            stem=stem,
            recipe=recipe,
            images=SameImages(files),
            trainer=self.step,
        )
        self.step.register_hooks(self._hooks())
        self.checkpointer.resume_or_load(init, resume=resume)
        self.start_iter = self.step.iter + 1 if self.checkpointer.resumed else 0
        if comm.is_main_process():
            self._log_summary(len(files))

    def train(self) -> Path:
        """Train to the end, or until SIGTERM or Ctrl-C; return the file of the weights.

        Raises:
            SystemExit: a signal stopped training, after a checkpoint; the code is 128 + the signal.
        """
        with self.step.stop_request:
            self.step.train(self.start_iter, self.recipe.iterations)
        return self.output / FINAL

    def _hooks(self) -> list[hooks.HookBase]:
        main, recipe = comm.is_main_process(), self.recipe
        return standard_hooks(
            step=self.step,
            output_dir=self.output,
            checkpointer=self.checkpointer,
            average=None,
            checkpoint_period=recipe.period,
            max_to_keep=CHECKPOINTS_KEPT,
            evaluate=Evaluate(
                recipe.period,
                self._draw,
                step=self.step,
                best_metric="",
                model=self.model,
                output_dir=self.output,
            ),
            writers=run_writers(self.output, recipe.iterations) if main else (),
            lr_scheduler=hooks.LRScheduler(scheduler=recipe.schedule()),
        )

    def _draw(self) -> dict[str, dict[str, float]]:
        """Draw the reconstructions on the main process, and return their loss."""
        if not comm.is_main_process():
            return {}
        done = min(self.step.iter + 1, self.recipe.iterations)
        path = self.output / "reconstructions" / f"{done:07d}.png"
        model = self.model
        loss = draw_reconstructions(model, self.fixed, model.mean, model.std, path)
        logging.getLogger(__name__).info(f"{path}: the loss of these images is {loss:.4f}")
        return {"fixed_images": {"loss": loss}}

    def _log_summary(self, images: int) -> None:
        recipe, backbone = self.recipe, self.model.backbone
        text = json.dumps({"images": images, **dataclasses.asdict(recipe)}, indent=2)
        write_text(self.output / "recipe.json", text + "\n")
        rows = {
            "images": f"{images}, {recipe.image_size} px, {_channels(recipe)}, "
            f"{self.model.mean.device}",
            "windows": f"{describe(backbone.window_sizes)} (per stage, tokens)",
            "pretrained": f"{describe(backbone.pretrained_window_sizes)} (windows, tokens)",
            "weights": self.checkpointer.report,
            "schedule": f"iterations {self.start_iter} to {recipe.iterations} of "
            f"{recipe.batch_size} images ({recipe.iterations * recipe.batch_size / images:.1f} "
            f"epochs), lr {recipe.highest_lr:g}, warm-up of {recipe.warmup_iterations} iterations",
            "output": str(self.output),
        }
        table = "\n".join(f"  {title:<12} {words}" for title, words in rows.items())
        logging.getLogger(__name__).info(f"\n{table}")


def pretrain(
    backbone: SwinV2,
    files: Sequence[str],
    output: str | os.PathLike,
    recipe: Recipe,
    *,
    device: str | None = None,
) -> Path:
    """Pre-train a backbone from its current weights.

    The arguments are those of :class:`Pretraining`.

    Returns:
        The file of the weights, which :func:`swinv2_backbone.load_checkpoint` and
        ``MODEL.WEIGHTS`` take.
    """
    return Pretraining(backbone, files, output, recipe, device=device).train()


def _channels(recipe: Recipe) -> str:
    return recipe.image_format if recipe.bands is None else f"{recipe.bands} bands"


def _check_channels(backbone: SwinV2, recipe: Recipe) -> None:
    """Raise ValueError if the backbone takes another number of channels than the images have."""
    found, expected = backbone.in_channels, len(recipe.pixel_mean)
    if found != expected:
        raise ValueError(
            f"the backbone takes {found} channels or bands, but pixel_mean has {expected} numbers: "
            f"build it with in_channels={expected}"
        )


def _check(model: SimMIM, recipe: Recipe, device: torch.device) -> None:
    """Raise ValueError if the model, the options and the device do not match."""
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("there is no GPU that PyTorch can use: use the device cpu")
    if recipe.image_size % model.stride:
        raise ValueError(
            f"the image size must be a multiple of the backbone's stride {model.stride}, got "
            f"{recipe.image_size}"
        )
    if recipe.batch_size % comm.get_world_size():
        raise ValueError(
            f"the {comm.get_world_size()} processes must have equally many images of a step, got a "
            f"batch size of {recipe.batch_size}"
        )
    if recipe.amp_dtype == "float16" and device.type == "cpu":
        raise ValueError("float16 requires a GPU: use bfloat16 on the CPU")


def _build_step(
    model: nn.Module, files: Sequence[str], mapper: MaskedImages, recipe: Recipe, output: Path
) -> TrainingStep:
    loader = TrainLoader(
        [{"file_name": file} for file in files],
        mapper,
        total_batch_size=recipe.batch_size,
        aspect_ratio_grouping=False,
        num_workers=recipe.num_workers,
        max_broken=recipe.max_broken,
        seed=recipe.seed,
    )
    shard_model(model, "none")
    groups = parameter_groups(model, lr=recipe.highest_lr, weight_decay=recipe.weight_decay)
    return TrainingStep(
        parallel_model(model, "none", broadcast_buffers=False),
        loader,
        torch.optim.AdamW(groups, lr=recipe.highest_lr, betas=(0.9, 0.999)),
        amp_dtype=getattr(torch, recipe.amp_dtype) if recipe.amp_dtype else None,
        clip={"kind": "full_model", "value": CLIP_NORM, "norm_type": 2.0},
        max_nonfinite=recipe.max_nonfinite_steps,
        output_dir=str(output),
    )
