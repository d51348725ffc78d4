"""The losses of a set of predicted masks, each matched with at most one mask of the image.

Cheng et al. 2022, "Masked-attention Mask Transformer for Universal Image Segmentation", section
3.2 and 3.3: a bipartite matching, and mask losses on sampled points.

Legend: B images, Q queries, K classes, T masks of an image, M matched masks of the batch, P points;
H, W of the labels, h, w of the predictions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from detectron2.projects.point_rend.point_features import (
    get_uncertain_point_coords_with_randomness,
    point_sample,
)
from detectron2.utils import comm
from torch import Tensor, nn

from swinv2_backbone.d2.modeling.mask_transformer.decoder import Prediction

OVERSAMPLE, UNCERTAIN_SHARE = 3.0, 0.75  # of the points of the losses


class Target(NamedTuple):
    """The classes (T,) and masks (T, H, W) of an image, padded to the size of the batch."""

    classes: Tensor
    masks: Tensor


class Criterion(nn.Module):
    """Cross entropy of the classes; binary cross entropy and dice loss of the matched masks.

    Args:
        num_classes: K.
        points: P.
        class_weight, mask_weight, dice_weight: weights of the losses and the matching costs.
        no_object_weight: weight of the class "no object" in the cross entropy.
    """

    class_weights: Tensor

    def __init__(
        self,
        num_classes: int,
        *,
        points: int,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        no_object_weight: float = 0.1,
    ):
        super().__init__()
        self.points = points
        self.weights = {"class": class_weight, "mask": mask_weight, "dice": dice_weight}
        weights = torch.ones(num_classes + 1)
        weights[-1] = no_object_weight
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(
        self, predictions: Sequence[Prediction], targets: Sequence[Target]
    ) -> dict[str, Tensor]:
        """Return the weighted losses of the last prediction, and of the earlier ones by number."""
        masks = torch.tensor(
            [float(sum(len(one.classes) for one in targets))], device=self.class_weights.device
        )
        if comm.get_world_size() > 1:
            torch.distributed.all_reduce(masks)
        masks = (masks / comm.get_world_size()).clamp(min=1)
        found = {}
        for number, prediction in enumerate(predictions):
            suffix = "" if number == len(predictions) - 1 else f"_{number}"
            # In float32 also under autocast.
            prediction = Prediction(prediction.classes.float(), prediction.masks.float())
            for name, loss in self._losses(prediction, targets, masks).items():
                found[f"loss_{name}{suffix}"] = loss * self.weights[name]
        return found

    def _losses(
        self, prediction: Prediction, targets: Sequence[Target], masks: Tensor
    ) -> dict[str, Tensor]:
        pairs = [
            self.match(Prediction(classes, masks), target)
            for classes, masks, target in zip(*prediction, targets, strict=True)
        ]
        labels = prediction.classes.new_full(
            prediction.classes.shape[:2], len(self.class_weights) - 1, dtype=torch.int64
        )
        for label, (query, row), target in zip(labels, pairs, targets, strict=True):
            label[query] = target.classes[row]
        logits = torch.cat([one[query] for one, (query, _) in zip(prediction.masks, pairs)])
        truth = torch.cat([one.masks[row] for one, (_, row) in zip(targets, pairs)])
        mask_loss, dice_loss = self._mask_losses(logits, truth)
        return {
            "class": F.cross_entropy(
                prediction.classes.transpose(1, 2), labels, self.class_weights
            ),
            "mask": mask_loss / masks.squeeze(),
            "dice": dice_loss / masks.squeeze(),
        }

    @torch.no_grad()
    def match(self, prediction: Prediction, target: Target) -> tuple[Tensor, Tensor]:
        """Assign a query to each mask of an image so that the total cost is least.

        Args:
            prediction: class logits (Q, K + 1) and mask logits (Q, h, w).

        Returns:
            Queries and rows of the target, both (min(Q, T),).
        """
        from scipy.optimize import linear_sum_assignment  # slow to import, and for training only

        point = torch.rand(1, self.points, 2, device=prediction.masks.device)
        logits = _sample(prediction.masks, point)  # (Q, P)
        truth = _sample(target.masks.float(), point)  # (T, P)
        probability = logits.sigmoid()
        entropy = (F.softplus(logits).sum(1, keepdim=True) - logits @ truth.T) / self.points
        overlap = 2 * probability @ truth.T
        sizes = probability.sum(1)[:, None] + truth.sum(1)[None]
        cost = (
            -self.weights["class"] * prediction.classes.softmax(1)[:, target.classes]
            + self.weights["mask"] * entropy
            + self.weights["dice"] * (1 - (overlap + 1) / (sizes + 1))
        )
        query, row = linear_sum_assignment(cost.nan_to_num(1e9, 1e9, -1e9).cpu())
        device = cost.device
        return torch.as_tensor(query, device=device), torch.as_tensor(row, device=device)

    def _mask_losses(self, logits: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sums over (M, h, w) logits and (M, H, W) masks of both mask losses."""
        if not len(logits):
            return logits.sum(), logits.sum()  # 0, with a gradient
        with torch.no_grad():
            point = get_uncertain_point_coords_with_randomness(
                logits[:, None], lambda x: -x.abs(), self.points, OVERSAMPLE, UNCERTAIN_SHARE
            )  # (M, P, 2)
            labels = _sample(truth.float(), point)
        found = _sample(logits, point)
        entropy = F.binary_cross_entropy_with_logits(found, labels, reduction="none").mean(1)
        probability = found.sigmoid()
        overlap, sizes = 2 * (probability * labels).sum(1), (probability + labels).sum(1)
        return entropy.sum(), (1 - (overlap + 1) / (sizes + 1)).sum()


def _sample(maps: Tensor, point: Tensor) -> Tensor:
    """Return the values (N, P) of maps (N, H, W) at points (N or 1, P, 2), x and y from 0 to 1."""
    point = point.expand(len(maps), -1, -1)
    # Beyond the center of an outer pixel, its own value counts, not one mixed with 0.
    return point_sample(maps[:, None], point, align_corners=False, padding_mode="border").squeeze(1)
