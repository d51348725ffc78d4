"""Two processes compute what one does with twice the batch (R16 of docs/RELIABILITY.md)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import cache
from itertools import combinations
from pathlib import Path

import pytest
import small_training
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from oracle import randomize
from processes import together
from scripts import CONFIGS
from small_training import config, lazy_training, train
from torch import nn

from swinv2_backbone import SwinV2
from swinv2_backbone.backbone import FEATURES
from swinv2_backbone.checkpoints.files import read_file
from swinv2_backbone.d2.config.rules import ConfigError
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.data.datasets.coco import register_coco
from swinv2_backbone.d2.demo.dataset import generate_demo_dataset
from swinv2_backbone.d2.engine.parallel import parallel_model, shard_model, shard_optimizer
from swinv2_backbone.d2.engine.step import TrainingStep
from swinv2_backbone.d2.engine.trainer import Trainer, load_plan

SUBSETS = [found for n in range(1, 5) for found in combinations(FEATURES, n)]
CASES = [
    *(dict(out_features=subset) for subset in SUBSETS),
    *(dict(frozen_stages=k) for k in range(5)),
    dict(activation_checkpointing=True),
    dict(activation_checkpointing=True, out_features=("res3", "res5"), frozen_stages=2),
    dict(kernel="reference"),
    dict(kernel="reference", activation_checkpointing=True),
]


class Squares(nn.Module):
    """A model whose losses are the mean squares of its features, as means over images."""

    def __init__(self, **options):
        super().__init__()
        self.backbone = SwinV2(
            embed_dim=16, depths=(2, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=4, **options
        )
        self.head = nn.Linear(1, 1)  # trains even if all stages are frozen

    def forward(self, batch: torch.Tensor) -> dict[str, torch.Tensor]:
        features = self.backbone(batch)
        return {
            name: self.head(x.square().mean((1, 2, 3))[:, None]).mean()
            for name, x in features.items()
        }


def losses_and_weights(options: dict, steps: int = 2) -> tuple[list[float], list[torch.Tensor]]:
    """Train on this process's share of four images; only the main process returns losses."""
    # The wrapper gives all processes the weights of the first. A fresh model would not do: its
    # blocks are the identity, and its features have a mean square of 1 for every input.
    model = randomize(Squares(**options), seed=comm.get_rank()).train()
    images = torch.randn(4, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    own = images[comm.get_rank() :: comm.get_world_size()]
    trained = [p for p in model.parameters() if p.requires_grad]
    # Above the rounding of a gradient, which AdamW would make a step as large as any other.
    optimizer = torch.optim.AdamW(trained, lr=1e-3, eps=1e-5)
    step = TrainingStep(parallel_model(model, "none"), [own] * steps, optimizer)
    with EventStorage() as storage:
        for _ in range(steps):
            step.run_step()
    losses = storage.history("total_loss").values() if comm.is_main_process() else []
    return [value for value, _ in losses], [p.detach().clone() for p in model.parameters()]


def all_cases() -> list:
    torch.set_num_threads(1)
    return [losses_and_weights(options) for options in CASES]


@pytest.fixture(scope="module")
def of_one_and_of_two(tmp_path_factory) -> tuple[list, list]:
    first, second = together(2, all_cases, folder=tmp_path_factory.mktemp("two"))
    for one, other in zip(first, second):
        assert all(torch.equal(a, b) for a, b in zip(one[1], other[1])), "processes differ"
    return all_cases(), first


@pytest.mark.parametrize("number", range(len(CASES)), ids=[str(case) for case in CASES])
def test_two_processes_are_one_with_twice_the_batch(number, of_one_and_of_two):
    (one, one_weights), (two, two_weights) = (found[number] for found in of_one_and_of_two)
    assert two == pytest.approx(one, rel=1e-5)
    for a, b in zip(one_weights, two_weights):
        torch.testing.assert_close(b, a, rtol=1e-5, atol=2e-5)  # of steps of 1e-3


# ---- Evaluation


class Nearly(nn.Module):
    """A detector whose boxes are worse on later images, so that AP is far from 0 and 100."""

    def __init__(self, records: list[dict]):
        super().__init__()
        self.objects = {record["image_id"]: record["annotations"] for record in records}

    def forward(self, batch: list[dict]) -> list[dict]:
        return [{"instances": self._find(record)} for record in batch]

    def _find(self, record: dict) -> Instances:
        objects = self.objects[record["image_id"]]
        boxes = torch.tensor([found["bbox"] for found in objects], dtype=torch.float32)
        boxes[:, 2:] += boxes[:, :2]
        boxes += 0.07 * record["image_id"] * (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        classes = [found["category_id"] for found in objects]
        return Instances(
            (record["height"], record["width"]),
            pred_boxes=Boxes(boxes),
            scores=torch.linspace(0.9, 0.5, len(boxes)),
            pred_classes=torch.tensor(classes),
        )


def evaluated(folder: Path, name: str) -> dict:
    cfg = config(folder, 1, 1)
    cfg.DATASETS.TEST, cfg.MODEL.MASK_ON, cfg.OUTPUT_DIR = (name,), False, str(folder)
    return Trainer.test(cfg, Nearly(DatasetCatalog.get(name)))


def test_processes_evaluate_as_one_does(tmp_path):
    """Five images: one process has more than the other."""
    name = "evaluated_by_processes"
    demo = generate_demo_dataset(tmp_path / "demo", num_train=1, num_val=5, image_size=64)
    register_coco(name, str(demo.val_json), str(demo.val_images), masks=False)
    try:
        one = evaluated(tmp_path / "one", name)
        two, rest = together(2, evaluated, tmp_path / "two", name, folder=tmp_path / "logs")
    finally:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    assert 10 < one["bbox"]["AP"] < 90
    assert str(two) == str(one) and rest == {}  # as text, in which NaN equals itself


# ---- Sharded


def sharded(folder: Path, sharding: str, resume: bool = False) -> dict:
    """Return the losses of a training, and the bytes of this process's optimizer state."""
    cfg = config(folder, 4, 2)
    cfg.SOLVER.EMA.ENABLED, cfg.SOLVER.SHARDING, cfg.SOLVER.AMP.ENABLED = False, sharding, False
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED, cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = True, "full_model"
    found, original = {}, TrainingStep.collected

    def spy(step: TrainingStep):
        own = getattr(step.optimizer, "optim", step.optimizer)
        tensors = [t for s in own.state.values() for t in s.values() if isinstance(t, torch.Tensor)]
        local = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
        found["bytes"] = sum(t.numel() * t.element_size() for t in local)
        return original(step)

    TrainingStep.collected = spy
    try:
        return {"losses": train(cfg, resume)} | found
    finally:
        TrainingStep.collected = original


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    yield small_training.register(tmp_path_factory.mktemp("images"))
    small_training.forget()


@pytest.fixture(scope="module")
def trained(images, tmp_path_factory) -> Callable[[str], tuple[Path, list]]:
    """Return the folder and the results of a training with a kind of sharding, made once."""

    @cache
    def trained(sharding: str) -> tuple[Path, list]:
        folder = tmp_path_factory.mktemp(sharding)
        return folder, together(2, sharded, folder, sharding, folder=folder / "logs")

    return trained


@pytest.mark.parametrize("sharding", ["optimizer", pytest.param("all", marks=pytest.mark.slow)])
def test_shards_train_as_the_whole_in_less_memory(sharding, trained, record_figures):
    (whole, expected), (folder, found) = trained("none"), trained(sharding)
    assert found[0]["losses"] == pytest.approx(expected[0]["losses"], rel=1e-5)
    one = read_file(whole / "model_final.pth", extras=False).value
    other = read_file(folder / "model_final.pth", extras=False).value
    assert one["model"].keys() == other["model"].keys()
    for name, value in one["model"].items():
        torch.testing.assert_close(other["model"][name], value, rtol=1e-3, atol=1e-4)
    # The file is an ordinary one, including the state of the optimizer.
    states = [content["trainer"]["_trainer"]["optimizer"] for content in (one, other)]
    assert states[0]["state"].keys() == states[1]["state"].keys()
    for number, state in states[0]["state"].items():
        for key, value in state.items():
            torch.testing.assert_close(states[1]["state"][number][key], value, rtol=1e-2, atol=1e-4)
    shares = [one["bytes"] / expected[0]["bytes"] for one in found]
    assert max(shares) < 0.6, shares
    record_figures("sharding", f"{sharding}: per-process optimizer bytes {shares} of the whole")


def sharded_by_lazy_config(folder: Path, sharding: str) -> dict:
    cfg = lazy_training(folder, 2, 10)
    cfg.train.ema.enabled, cfg.train.sharding = False, sharding
    return train(cfg)


@pytest.mark.parametrize("sharding", ["optimizer", pytest.param("all", marks=pytest.mark.slow)])
def test_a_lazy_config_shards_too(sharding, images, tmp_path):
    losses, _ = together(2, sharded_by_lazy_config, tmp_path, sharding, folder=tmp_path / "logs")
    assert list(losses) == [0, 1]
    assert (tmp_path / "model_final.pth").is_file()


CHANGES = [
    ("all", "none"),
    pytest.param("optimizer", "all", marks=pytest.mark.slow),
    pytest.param("none", "optimizer", marks=pytest.mark.slow),
    pytest.param("optimizer", "optimizer", marks=pytest.mark.slow),
    pytest.param("all", "all", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("first", "then"), CHANGES)
def test_a_training_resumes_with_any_other_sharding(first, then, trained, tmp_path):
    expected = trained("none")[1][0]["losses"]
    saved = "model_0000001.pth"  # after the first two of four iterations
    shutil.copy(trained(first)[0] / saved, tmp_path)
    (tmp_path / "last_checkpoint").write_text(saved)
    found = together(2, sharded, tmp_path, then, True, folder=tmp_path / "logs")
    assert found[0]["losses"] == pytest.approx({k: expected[k] for k in (2, 3)}, rel=1e-4)


REFUSED = {
    "unknown": (
        "SOLVER.SHARDING zero",
        "train.sharding=zero",
        "must be one of none, optimizer, all, got 'zero'",
    ),
    "average": (
        "SOLVER.SHARDING all SOLVER.EMA.ENABLED True",
        "train.sharding=all train.ema.enabled=true",
        "does not support the average of the weights",
    ),
    "float16": (
        "SOLVER.SHARDING all SOLVER.AMP.ENABLED True SOLVER.AMP.DTYPE float16",
        "train.sharding=all train.amp.enabled=true train.amp.dtype=float16",
        "does not support gradient scaling",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_impossible_sharding_is_refused_in_both_dialects(case):
    yaml, lazy, words = REFUSED[case]
    with pytest.raises(ConfigError, match=f"SOLVER.SHARDING.*{words}"):
        load_config("", ["MODEL.DEVICE", "cpu", *yaml.split()])
    with pytest.raises(ConfigError, match=f"train.sharding.*{words}"):
        load_plan(str(CONFIGS / "mask_rcnn_swinv2.py"), ["train.device=cpu", *lazy.split()])


def test_sharding_needs_several_processes(tmp_path):
    cfg = config(tmp_path, 1, 1)
    cfg.SOLVER.SHARDING = "optimizer"
    cfg.SOLVER.EMA.ENABLED = False
    with pytest.raises(ConfigError, match="SOLVER.SHARDING 'optimizer' needs several processes"):
        Trainer(cfg)


def test_nothing_is_sharded_by_default():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    shard_model(model, "none")
    assert type(model) is nn.Linear
    assert shard_optimizer(optimizer, "none") is optimizer
