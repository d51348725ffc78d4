"""LoRA on the frozen backbone of a detector, by ``lora.py`` of docs/ADAPTERS.md.

With peft, where it is installed, else with a stand-in for it.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest
import small_training
import stand_in_for_peft
import torch
from documents import ROOT, blocks_of
from models import largest_difference, pictures
from oracle import randomize
from processes import together
from small_configs import CONFIGS, SMALL
from small_training import train
from torch import nn

from swinv2_backbone.checkpoints.files import read_file
from swinv2_backbone.d2.config.yacs import load_config
from swinv2_backbone.d2.engine.checkpoint import Checkpointer
from swinv2_backbone.d2.modeling.build import build_model

PREFIX = "backbone.bottom_up.swinv2."


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    """The module that the documentation shows."""
    (block,) = [b for b in blocks_of(ROOT / "docs/ADAPTERS.md") if b.detail == "lora.py"]
    folder = tmp_path_factory.mktemp("project")
    (folder / "lora.py").write_text(block.text)
    before = dict(sys.modules)
    stand_in_for_peft.install()
    sys.path.insert(0, str(folder))
    yield importlib.import_module("lora")
    sys.path.remove(str(folder))
    for name in sys.modules.keys() - before.keys():
        if name.partition(".")[0] in ("peft", "lora"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    small_training.register(tmp_path_factory.mktemp("images"))
    yield
    small_training.forget()


def config(output: Path, *opts: str, adapted: bool = True, iterations: int = 4):
    name = "build_lora_swinv2_fpn_backbone" if adapted else "build_swinv2_fpn_backbone"
    found = load_config(
        str(CONFIGS / "mask_rcnn_swinv2.yaml"),
        [*SMALL, "MODEL.DEVICE", "cpu", "MODEL.BACKBONE.NAME", name, "OUTPUT_DIR", str(output)]
        + ["SOLVER.MAX_ITER", str(iterations), "SOLVER.CHECKPOINT_PERIOD", "2", "SEED", "7"]
        + ["SOLVER.WARMUP_ITERS", "1", "SOLVER.STEPS", "()", "TEST.EVAL_PERIOD", "0"]
        + ["SOLVER.EMA.ENABLED", "True", "SOLVER.BASE_LR", "0.01", *opts],
        ["lora:add_lora_config"] if adapted else [],
    )
    found.DATASETS.TRAIN, found.DATASETS.TEST = (small_training.NAME,), ()
    return found


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> Path:
    """Write the weights of a plain detector."""
    folder = tmp_path_factory.mktemp("published")
    torch.manual_seed(3)
    model = build_model(config(folder, adapted=False))
    randomize(model.backbone.bottom_up.swinv2, seed=0)  # norms of 0 pass no gradient on
    Checkpointer(model, str(folder)).save("plain")
    return folder / "plain.pth"


def trained(folder: Path, published: Path, resume: bool = False, stop: int | None = None):
    return train(config(folder, "MODEL.WEIGHTS", str(published)), resume, stop)


def model_of(file: Path) -> dict[str, torch.Tensor]:
    return read_file(file, extras=False).value["model"]


@pytest.fixture(scope="module")
def run(lora, images, published, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    trained(folder, published)
    return folder


def test_adapters_heads_and_fpn_are_trained_and_the_backbone_is_frozen(run, published):
    before, after = model_of(published), model_of(run / "model_final.pth")
    adapters = {name for name in after if ".lora_" in name}
    assert len(adapters) == 2 * (1 + 4 * 4 + 3)  # patch embedding, four blocks, three mergings
    for name, tensor in after.items():
        plain = name.replace(".base_layer.", ".")
        if name in adapters:
            assert tensor.abs().max() > 0, name  # B starts at 0
        elif name.startswith(PREFIX):
            assert torch.equal(tensor, before[plain]), name
        elif name.endswith("weight"):
            assert not torch.equal(tensor, before[plain]), name


@pytest.mark.heavy
def test_a_resumed_training_is_the_same(run, published, tmp_path):
    trained(tmp_path, published, stop=3)  # after the checkpoint of iteration 2
    trained(tmp_path, published, resume=True)
    actual, expected = (model_of(folder / "model_final.pth") for folder in (tmp_path, run))
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


def test_merged_weights_are_those_of_a_plain_detector(lora, run, tmp_path):
    model = build_model(config(run))
    Checkpointer(model).load(str(run / "model_final.pth"), checkpointables=[])
    adapted, images = model.eval().backbone.bottom_up.swinv2, pictures(1, 3, 64, 96)
    with torch.no_grad():
        expected = adapted(images)
        lora.merge(model)
        Checkpointer(model, str(tmp_path)).save("merged")
        plain = build_model(config(tmp_path, adapted=False)).eval()
        checkpointer = Checkpointer(plain)
        checkpointer.load(str(tmp_path / "merged.pth"), checkpointables=[])
        checkpointer.require_complete()
        backbone = plain.backbone.bottom_up.swinv2
        assert largest_difference(backbone(images), expected) < 1e-4
        assert all(block.plain_parameters() for stage in backbone.layers for block in stage.blocks)


def test_a_plain_detector_refuses_adapters_and_says_why(run, tmp_path):
    plain = build_model(config(tmp_path, adapted=False))
    with pytest.raises(ValueError, match="the file has adapters, which must be merged first"):
        Checkpointer(plain).load(str(run / "model_final.pth"), checkpointables=[])


def losses_of_two(folder: Path, published: Path) -> dict[int, float]:
    return trained(folder, published)


def test_two_processes_train_adapters(lora, images, published, tmp_path):
    """DistributedDataParallel stops at the second iteration if a parameter has no gradient."""
    losses, _ = together(2, losses_of_two, tmp_path, published, folder=tmp_path / "logs")
    assert list(losses) == [0, 1, 2, 3]
    after = model_of(tmp_path / "model_final.pth")
    assert all(tensor.abs().max() > 0 for name, tensor in after.items() if ".lora_B" in name)


def test_adapters_are_decayed_and_scaled_as_their_layers(lora, tmp_path):
    from swinv2_backbone.d2.solver.optimizer import build_optimizer

    opts = ["MODEL.LORA.LAYERS", "['qkv', 'cpb_mlp.0', 'patch_embed.proj']", "SOLVER.LAYER_DECAY"]
    cfg = config(tmp_path, *opts, "0.5", "SOLVER.BASE_LR", "1.0", "SOLVER.WEIGHT_DECAY", "0.05")
    groups = build_optimizer(cfg, build_model(cfg)).param_groups
    found = {name: group for group in groups for name in group["names"] if "lora_A" in name}
    settings = {
        name.removeprefix(PREFIX).partition(".lora_A")[0]: (group["lr"], group["weight_decay"])
        for name, group in found.items()
    }
    assert len(settings) == 4 + 4 + 1
    assert settings["patch_embed.proj"] == (0.5**5, 0.05)
    assert settings["layers.0.blocks.0.attn.qkv"] == (0.5**4, 0.05)
    assert settings["layers.3.blocks.0.attn.cpb_mlp.0"] == (0.5, 0.0)


def test_parametrized_and_pruned_parameters_are_decayed_as_what_they_stand_for(lora):
    from layer_changes import Gained, small_backbone
    from torch.nn.utils import parametrize, prune

    from swinv2_backbone.d2.solver.optimizer import parameter_groups

    model = small_backbone()
    attn, mlp, norm = (
        model.get_submodule(f"layers.0.blocks.0.{n}") for n in ("attn", "mlp", "norm1")
    )
    for owner, name in ((attn, "logit_scale"), (attn, "q_bias"), (mlp.fc1, "weight")):
        parametrize.register_parametrization(owner, name, Gained(), unsafe=True)
    parametrize.register_parametrization(norm, "weight", Gained(), unsafe=True)
    prune.random_unstructured(mlp.fc2, "bias", amount=0.5)
    prune.random_unstructured(mlp.fc2, "weight", amount=0.5)
    decays = {
        name.removeprefix("layers.0.blocks.0."): group["weight_decay"]
        for group in parameter_groups(model, lr=1, weight_decay=0.05)
        for name in group["names"]
    }
    assert decays["attn.parametrizations.logit_scale.original"] == 0
    assert decays["attn.parametrizations.q_bias.original"] == 0
    assert decays["norm1.parametrizations.weight.original"] == 0
    assert decays["mlp.fc1.parametrizations.weight.original"] == 0.05
    assert decays["mlp.fc2.bias_orig"] == 0
    assert decays["mlp.fc2.weight_orig"] == 0.05


def test_published_weights_load_into_adapted_layers(lora, published, tmp_path):
    model: nn.Module = build_model(config(tmp_path))
    checkpointer = Checkpointer(model)
    checkpointer.load(str(published), checkpointables=[])
    own, theirs = model.state_dict(), model_of(published)
    for name, tensor in own.items():
        if ".lora_" not in name:
            assert torch.equal(tensor, theirs[name.replace(".base_layer.", ".")]), name
    with pytest.raises(ValueError, match="do not cover the whole model"):
        checkpointer.require_complete()
