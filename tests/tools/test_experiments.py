"""tools/run_experiments.py: the experiments compare what their tables say."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from detectron2.data import DatasetCatalog, MetadataCatalog
from experiment_jobs import take_time, work
from scripts import ROOT, tool

sys.path.insert(0, str(ROOT / "tools"))
from experiments import biases, classify, detectors, masked, padding, pictures, plan, stability  # noqa: E402
from experiments.jobs import Job, run  # noqa: E402
from experiments.report import report, spread  # noqa: E402

from swinv2_backbone import SwinV2  # noqa: E402
from swinv2_backbone.attention import WindowAttention  # noqa: E402
from swinv2_backbone.block import SwinV2Block  # noqa: E402
from swinv2_backbone.position_bias import PositionBias  # noqa: E402
from swinv2_backbone.windows import Partition  # noqa: E402

SMALL = dict(embed_dim=8, depths=(2, 2), num_heads=(1, 2), window_size=4)


def backbone(**options) -> SwinV2:
    torch.manual_seed(0)
    made = SwinV2(**SMALL | {"out_features": ("res3",)} | options)
    for block in blocks(made):
        for norm in (block.norm1, block.norm2):  # otherwise every block is the identity
            torch.nn.init.normal_(norm.weight)
    return made


def blocks(model: torch.nn.Module) -> list[SwinV2Block]:
    return [module for module in model.modules() if isinstance(module, SwinV2Block)]


@pytest.fixture(autouse=True)
def datasets_of_their_own():
    """Remove the datasets, whose folder differs from test to test."""
    yield
    for name in set(DatasetCatalog.list()) & {"demo_train", "demo_val"}:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


# ---- biases


def test_the_linear_bias_is_an_mlp_of_the_offset_over_the_pretrained_window():
    bias = biases.LinearBias(3, (4, 5))
    table = bias((6, 7)).view(3, 11, 13)
    for d_h, d_w in [(-5, 6), (0, 0), (3, -2)]:
        found = bias[2](bias[1](bias[0](torch.tensor([d_h / 3, d_w / 4]))))
        torch.testing.assert_close(table[:, d_h + 5, d_w + 6], found)


def test_the_table_is_the_bias_at_its_own_window_and_interpolated_at_others():
    bias = biases.ParameterizedBias(2, (4, 4))
    assert torch.equal(bias((4, 4)), bias.weight.flatten(1))
    larger = bias((7, 7)).view(2, 13, 13)
    # Both cover the same span, so every second entry is a learned one.
    torch.testing.assert_close(larger[:, ::2, ::2], bias.weight)


def test_the_log_bias_of_an_offset_is_the_same_in_every_window():
    made = backbone()
    biases.set_bias(made, "log")
    bias = made.layers[0].blocks[0].attn.cpb_mlp
    torch.testing.assert_close(
        bias((8, 8)).view(1, 15, 15)[:, 4:-4, 4:-4], bias((4, 4)).view(1, 7, 7)
    )


@pytest.mark.parametrize("kind", biases.BIASES)
def test_a_bias_is_in_every_block_learns_and_is_used_by_both_kernels(kind):
    made = backbone()
    biases.set_bias(made, kind)
    assert all(type(block.attn.cpb_mlp) is biases.KINDS[kind] for block in blocks(made))
    images = torch.randn(2, 3, 40, 36)
    made(images)["res3"].square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for n, p in made.named_parameters() if "cpb_mlp" in n)
    found = {}
    for kernel in ("tiles", "reference"):
        for block in blocks(made):
            block.kernel = kernel
        with torch.no_grad():
            found[kernel] = made(images)["res3"]
    torch.testing.assert_close(found["tiles"], found["reference"], rtol=1e-4, atol=1e-5)
    for block in blocks(made):
        for weight in block.attn.cpb_mlp.parameters():
            weight.data.add_(torch.randn_like(weight))
    with torch.no_grad():
        assert not torch.allclose(made(images)["res3"], found["tiles"], atol=1e-3)


# ---- padding


def attention(seed: int = 0) -> WindowAttention:
    torch.manual_seed(seed)
    made = WindowAttention(8, 2, (4, 4)).double()
    torch.nn.init.normal_(made.q_bias)
    torch.nn.init.normal_(made.v_bias)
    return made


def test_attending_to_padding_is_ordinary_attention_on_a_map_padded_with_zeros():
    made = attention()
    maps = torch.randn(2, 6, 5, 8, dtype=torch.float64)
    zeros = F.pad(maps, (0, 0, 0, 3, 0, 2))  # to 8 x 8
    expected = made(zeros.flatten(0, 2), Partition(((8, 8),) * 2, (4, 4), False))
    expected = expected.view(2, 8, 8, 8)[:, :6, :5]
    made.__class__ = padding.PaddingAttended
    found = made(maps.flatten(0, 2), Partition(((6, 5),) * 2, (4, 4), False))
    torch.testing.assert_close(found.view(2, 6, 5, 8), expected)


def test_attending_to_padding_differs_only_if_there_is_padding():
    images = {size: torch.randn(1, 3, *size) for size in ((64, 64), (52, 64))}
    made = backbone()
    with torch.no_grad():
        masked = {size: made(one)["res3"] for size, one in images.items()}
        padding.attend_padding(made)
        attended = {size: made(one)["res3"] for size, one in images.items()}
    torch.testing.assert_close(attended[64, 64], masked[64, 64], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(attended[52, 64], masked[52, 64], atol=1e-3)


# ---- families


def test_dot_product_attention_is_softmax_of_products_and_bias():
    made = attention()
    made.cpb_mlp = biases.ParameterizedBias(2, (4, 4)).double()
    made.__class__ = stability.DotProductAttention
    tokens = torch.randn(16, 8, dtype=torch.float64)
    q, k, v = (made.qkv(tokens) + made.qkv_bias).view(16, 3, 2, 4).unbind(1)
    rows = []
    for query in range(16):
        heads = []
        for head in range(2):
            logits = []
            for key in range(16):
                d_h, d_w = query // 4 - key // 4, query % 4 - key % 4
                offset = made.cpb_mlp.weight[head, d_h + 3, d_w + 3]
                logits.append(q[query, head] @ k[key, head] / math.sqrt(4) + offset)
            heads.append(torch.stack(logits).softmax(0) @ v[:, head])
        rows.append(torch.cat(heads))
    expected = made.proj(torch.stack(rows))
    torch.testing.assert_close(made(tokens, Partition(((4, 4),), (4, 4), False)), expected)


def test_swin_v1_has_norms_before_its_branches():
    block = blocks(stability.model("v1", 32))[0].double()
    tokens, partition = (
        torch.randn(64, 32, dtype=torch.float64),
        Partition(((8, 8),), (8, 8), False),
    )
    first = tokens + block.attn(block.norm1(tokens), partition)
    expected = first + block.mlp(block.norm2(first))
    torch.testing.assert_close(block(tokens, partition), expected)
    assert all(type(b) is SwinV2Block for b in blocks(stability.model("v2", 32)))


def test_amplitudes_are_those_after_each_block(tmp_path):
    found = stability.run(tmp_path, family="v1", embed_dim=32, lr=0.0, seed=0, images=8, steps=5)
    assert found["before"] == found["after"] and len(found["losses"]) == 5
    torch.manual_seed(0)
    made = stability.model("v1", 32).eval()
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    tokens = made.backbone.patch_embed(images, ((16, 16),) * 8)
    after = made.backbone.layers[0].blocks[0](tokens, Partition(((16, 16),) * 8, (8, 8), False))
    assert found["before"][0] == pytest.approx(after.square().mean().sqrt().item(), rel=1e-5)


# ---- pictures


def test_a_picture_shows_the_same_at_any_size_and_every_time():
    large, classes = pictures.pictures(192, 6, seed=3)
    small, same = pictures.pictures(64, 6, seed=3)
    assert torch.equal(classes, same)
    torch.testing.assert_close(F.avg_pool2d(large, 3), small, rtol=0, atol=0.02)
    pictures._drawn.cache_clear()
    assert torch.equal(pictures.pictures(64, 6, seed=3)[0], small)
    assert not torch.equal(pictures.pictures(64, 6, seed=4)[0], small)


def test_the_class_is_the_shape_above(monkeypatch):
    drawn = []
    mask = pictures._mask

    def watched(shape, center, radius, angle):
        drawn.append((center[1], shape))
        return mask(shape, center, radius, angle)

    monkeypatch.setattr(pictures, "_mask", watched)
    for seed in range(20):
        drawn.clear()
        _, upper = pictures._draw(np.random.default_rng(seed))
        assert len(drawn) == 2 and pictures.SHAPES[upper] == min(drawn)[1]


# ---- jobs


A = Job("a", work, {"number": 1})
B = Job("b", work, {"number": 2}, needs=("a",))
BAD = Job("bad", work, {"number": -1}, needs=("b",))


@pytest.fixture(scope="module")
def done(tmp_path_factory) -> Path:
    """The folder of jobs of which the last failed."""
    folder = tmp_path_factory.mktemp("jobs")
    with pytest.raises(RuntimeError, match="bad failed, options {'number': -1}"):
        run([BAD, B, A], folder, processes=2)
    return folder


def calls(folder: Path) -> list[str]:
    return (folder / "calls.txt").read_text().split()


def test_a_job_waits_for_the_jobs_that_it_needs(done):
    assert calls(done) == ["1", "2", "-1"]


def test_results_beside_a_failure_are_kept(done):
    assert {path.name for path in done.iterdir()} == {"a.json", "b.json", "calls.txt"}


def test_finished_jobs_are_not_repeated(done):
    before = calls(done)
    found = run([A, B], done, processes=1)
    assert [found[name]["twice"] for name in ("a", "b")] == [2.0, 4.0]
    assert calls(done) == before


def test_results_of_other_options_are_refused(done):
    with pytest.raises(ValueError, match="result of other options"):
        run([Job("a", work, {"number": 2})], done, processes=1)
    assert json.loads((done / "a.json").read_text())["result"]["twice"] == 2.0


def test_nothing_runs_beside_a_job_that_must_be_alone(tmp_path):
    jobs = [
        Job(str(number), take_time, {"number": number}, alone=number == 2) for number in range(5)
    ]
    found = run(jobs, tmp_path, processes=2)
    alone, *others = found.pop("2"), *found.values()
    assert all(one["ended"] <= alone["begun"] or one["begun"] >= alone["ended"] for one in others)


@pytest.mark.parametrize("scale", [plan.FULL, plan.QUICK])
def test_every_job_has_a_unique_name_and_needs_existing_jobs(scale):
    jobs = plan.jobs(scale)
    names = [job.name for job in jobs]
    assert len(set(names)) == len(names)
    assert all(set(job.needs) <= set(names) for job in jobs)


# ---- the report


def test_spread_is_mean_and_sample_deviation():
    assert spread([1.0, 2.0, 6.0]) == "3.0 ± 2.6"


def test_every_result_is_in_the_report(tmp_path):
    """All numbers differ, so none can be mistaken for another."""
    scale, results, expected = plan.QUICK, {}, set()
    for number, job in enumerate(plan.jobs(scale), start=1):
        seed = job.options.get("seed", 0)
        value = float(3 * number + 100 * seed)
        keys = ("accuracy", "box_ap", "box_ap_together", "loss", "w8", "w16")
        result = {key: value + place / 10 for place, key in enumerate(keys)}
        results[job.name] = result | {"minutes": 1.0, "before": [value], "after": [value]}
    text = report(results, scale)
    for job in plan.jobs(scale):
        if job.name.startswith(("dataset", "simmim")) or job.options["seed"] != scale.seeds[0]:
            continue
        kind = job.name.split("_")[0]
        for key in {
            "pretrain": ("w8", "w16"),
            "tune": ("accuracy",),
            "detect": ("box_ap",),
            "stability": ("loss",),
        }[kind]:
            names = [job.name.replace("seed0", f"seed{seed}") for seed in scale.seeds]
            digits = 2 if kind == "stability" else 1
            expected.add(spread([results[name][key] for name in names], digits))
    missing = {one for one in expected if one not in text}
    assert missing == set()


# ---- real trainings


@pytest.mark.slow
def test_a_classifier_is_trained_tuned_and_becomes_a_detector(tmp_path, monkeypatch):
    from experiments import transfer

    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    options = dict(images=32, steps=3, test=16)
    for bias in biases.BIASES:
        found = transfer.pretrain(tmp_path, bias=bias, seed=0, windows=[8, 16], **options)
        assert 0 <= found["w16"] <= 100 and found["loss"] > 0
        transfer.tune(tmp_path, bias=bias, seed=0, window=16, **options)
    detectors.make_dataset(tmp_path, train=8, test=4)
    common = dict(seed=0, window=16, iterations=2)
    for change in ({}, {"pretrained_window": 16}, {"attended": True}, {"frozen": True}):
        assert "box_ap" in detectors.detect(tmp_path, start="log", **common, **change)
    masked.fill_in(tmp_path, seed=0, iterations=2)
    for start in ("parameterized", detectors.SCRATCH, detectors.SIMMIM):
        detectors.detect(tmp_path, start=start, **common)
    assert not list(temporary.iterdir()) and not list(tmp_path.glob("tmp*"))


@pytest.mark.slow
def test_a_frozen_backbone_does_not_change_and_its_heads_do(tmp_path, monkeypatch):
    trained = []

    def untested(cfg, model, batch):
        trained.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"bbox": {"AP": 0.0}, "segm": {"AP": 0.0}}

    monkeypatch.setattr(detectors, "_evaluate", untested)
    detectors.make_dataset(tmp_path, train=8, test=4)
    for frozen in (True, False):
        trained.clear()
        for iterations in (1, 3):
            options = dict(seed=0, window=8, iterations=iterations, frozen=frozen)
            detectors.detect(tmp_path, start=detectors.SCRATCH, **options)
        short, long = trained[0], trained[-1]
        changed = {name for name, value in short.items() if not torch.equal(value, long[name])}
        assert any(name.startswith("roi_heads.") for name in changed)
        assert any(name.startswith("backbone.bottom_up.") for name in changed) == (not frozen)


@pytest.mark.slow
def test_the_quick_form_finishes(tmp_path, monkeypatch):
    small = dict(
        images=16, steps=2, tested=8, tuned_images=16, tuned_steps=2, iterations=2, filling_in=2
    )
    small |= dict(detector_images=(8, 4), stability_steps=5, widths=(32, 64), filling_in=2)
    script = tool("run_experiments")
    script.QUICK = plan.Scale(**vars(plan.QUICK) | small)
    monkeypatch.chdir(tmp_path)
    script.main(["--quick", "--processes", "2"])
    folder = tmp_path / "output" / "experiments_quick"
    assert {"transfer.png", "detectors.png", "stability.png", "results.md"} <= {
        path.name for path in folder.iterdir()
    }


@pytest.mark.slow
def test_a_classifier_learns(tmp_path):
    torch.manual_seed(0)
    model = classify.classifier("parameterized")
    losses = classify.train(model, 8, images=16, steps=30, lr=2e-3, seed=0, batch=16)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_a_pretrained_bias_keeps_its_pretrained_window_at_another_window():
    model = classify.classifier("log")
    model.backbone.set_window_size(16)
    found = [m for m in model.modules() if isinstance(m, PositionBias)]
    assert all(bias.pretrained_window == (8, 8) for bias in found)
    assert set(model.backbone.window_sizes) == {(16, 16)}
