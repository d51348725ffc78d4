"""A small SwinV2 classifier: trained at one window, tested and tuned at others."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.biases import set_bias
from experiments.pictures import SHAPES, pictures
from swinv2_backbone import SwinV2, SwinV2Classifier
from swinv2_backbone.d2.solver.optimizer import parameter_groups

WINDOW = 8  # of pre-training, in tokens
PIXELS = 8  # side of the picture per token of the window: larger pictures have larger windows
EMBED_DIM, DEPTHS, NUM_HEADS = 32, (2, 2, 2, 2), (1, 2, 4, 8)
BATCH, WARM_UP, WEIGHT_DECAY = 32, 0.1, 0.05
TEST_SEED = 1_000_000


def classifier(bias: str) -> SwinV2Classifier:
    """Build a classifier with random weights; ``WINDOW`` stays its pretrained window."""
    backbone = SwinV2(
        EMBED_DIM,
        DEPTHS,
        num_heads=NUM_HEADS,
        window_size=WINDOW,
        pretrained_window_sizes=WINDOW,
    )
    set_bias(backbone, bias)
    return SwinV2Classifier(backbone, len(SHAPES))


def train(
    model: nn.Module,
    window: int,
    *,
    images: int,
    steps: int,
    lr: float,
    seed: int,
    batch: int = BATCH,
) -> list[float]:
    """Train in place at the window's size of pictures; return the loss of every step."""
    data = pictures(PIXELS * window, images, seed)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(parameter_groups(model, lr=lr, weight_decay=WEIGHT_DECAY), lr=lr)
    warm_up = max(1, int(WARM_UP * steps))
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 1 / warm_up, total_iters=warm_up),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - warm_up),
        ],
        milestones=[warm_up],
    )
    losses = []
    model.train()
    for _ in range(steps):
        chosen, classes = _draw(*data, batch, generator)
        loss = F.cross_entropy(model(chosen), classes)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


def accuracy(model: nn.Module, window: int, images: int) -> float:
    """Return the accuracy in percent on pictures that were not trained on."""
    batches, classes = pictures(PIXELS * window, images, TEST_SEED)
    model.eval()
    with torch.inference_mode():
        found = torch.cat([model(batch).argmax(dim=1) for batch in batches.split(BATCH)])
    return 100 * (found == classes).double().mean().item()


def _draw(
    images: Tensor, classes: Tensor, batch: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw pictures at random, each mirrored left to right or not."""
    chosen = torch.randint(len(images), (batch,), generator=generator)
    mirrored = torch.rand(batch, generator=generator) < 0.5
    pictures = images[chosen]
    pictures = torch.where(mirrored[:, None, None, None], pictures.flip(3), pictures)
    return pictures, classes[chosen]
