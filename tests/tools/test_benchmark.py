"""tools/benchmark.py: candidates that may be timed, ratios, the floor, results that are kept.

No test asserts a time: times come from invented clocks, or only have to exist.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from statistics import median

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from scripts import ROOT, tool

from swinv2_backbone import VARIANTS, Variant, build_backbone
from swinv2_backbone.cli.flops import count_terms
from swinv2_backbone.d2.data.validation import check_coco

sys.path.insert(0, str(ROOT / "tools"))  # as the script itself does

from benchmarking import (  # noqa: E402
    attention,
    candidates,
    checks,
    comparison,
    detector,
    figures,
    floor,
    jobs,
    memory,
    peers,
    processes,
    products,
    quantized,
    report,
    results,
    scaling,
    settings,
    startup,
    suite,
    timing,
    ways,
    weights,
)
from benchmarking.candidates import Candidate  # noqa: E402
from benchmarking.settings import Setting  # noqa: E402

SMALL = Variant(32, (2, 1, 2, 1), (1, 2, 4, 8), (4,) * 4, (3,) * 4, image_size=64)


@pytest.fixture(autouse=True)
def small_model(monkeypatch):
    """Add a variant "small", whose pretrained window is not its window; restore the threads."""
    monkeypatch.setitem(VARIANTS, "small", SMALL)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def benchmark():
    """Load the script as a module."""
    return tool("benchmark")


def setting(size=(64, 64), window=2, **others) -> Setting:
    return Setting("small", window, size, **others)


def run(benchmark, *options: str) -> None:
    """Run the command on the small model with one thread and two rounds; later options override."""
    usual = ["--model", "small", "--sizes", "64x64", "--window", "2", "--threads", "1"]
    benchmark.main([*usual, "--rounds", "2", "--no-memory", *map(str, options)])


# Turns and ratios


class FakeTimes:
    """Stopwatches that read seconds from a list, and record the order of their turns."""

    def __init__(self, **seconds: list[float]):
        self.seconds = {name: iter(own) for name, own in seconds.items()}
        self.turns = []

    def runs(self):
        return {name: lambda name=name: self._turn(name) for name in self.seconds}

    def _turn(self, name):
        self.turns.append(name)
        return next(self.seconds[name])


def test_candidates_take_turns_and_the_warm_up_is_not_kept():
    fake = FakeTimes(a=[9, 1, 2], b=[9, 3, 4], c=[9, 5, 6])
    seconds = timing.alternate(fake.runs(), rounds=2, warmup=1)
    assert seconds == {"a": [1, 2], "b": [3, 4], "c": [5, 6]}
    assert fake.turns == ["a", "b", "c"] * 3


def test_time_limit_stops_after_three_rounds_at_the_earliest():
    ticks = iter(range(0, 1000, 10))
    fake = FakeTimes(a=[1] * 9)
    kept = timing.alternate(
        fake.runs(), rounds=9, warmup=0, time_limit=15, clock=lambda: next(ticks)
    )
    assert kept == {"a": [1, 1, 1, 1]}  # starts at 0; 10 after three rounds, 20 after four


def test_ratios_are_of_rounds_and_not_of_medians():
    peer, own = [2.0, 20.0, 3.0, 8.0, 5.0], [1.0, 5.0, 3.0, 2.0, 1.0]
    ratio = timing.paired(peer, own)
    each = [a / b for a, b in zip(peer, own)]
    assert ratio.median == np.median(each) == 4.0 != median(peer) / median(own)
    assert (ratio.low, ratio.high) == tuple(np.percentile(each, [25, 75]))


def test_summary_divides_by_the_fastest_eager_and_the_fastest_compiled_peer():
    measured = {
        "ours": ([1.0, 2.0], 30),
        "timm": ([4.0, 4.0], 100),
        "huggingface": ([3.0, 3.0], 120),
        "timm+compile": ([2.0, 2.0], 10),
        "ours+compile": ([0.1, 0.1], "killed"),
    }
    contents = {name: {"ms": ms, "memory": peak} for name, (ms, peak) in measured.items()}
    found = figures.comparison_figures({"candidates": contents, "floor": [0.5, 1.5]})
    ours = found["ours"]
    assert ours.over_eager.of == "huggingface"
    assert ours.over_eager.spread.median == (3 / 1 + 3 / 2) / 2
    assert ours.over_compiled.of == "timm+compile"
    assert ours.over_compiled.spread.median == (2 / 1 + 2 / 2) / 2
    assert ours.floor.median == (0.5 / 1 + 1.5 / 2) / 2
    assert ours.memory_ratio == 0.3  # of the leanest eager peer
    assert found["ours+compile"].memory_ratio is None


# Candidates that may be timed


def test_every_random_weight_matters():
    model = weights.random_backbone(setting())
    features = model(weights.random_images(setting()))
    sum((feature**3).sum() for feature in features.values()).backward()
    idle = [name for name, p in model.named_parameters() if not p.grad.abs().max() > 1e-4]
    assert not idle


@pytest.mark.parametrize("mode", settings.MODES)
def test_every_installed_candidate_equals_the_reference(mode):
    at = setting((64, 128), mode=mode)
    contest = comparison.admit(at, candidates.installed(), weights.random_backbone(at))
    assert set(contest.models) == {"ours", "timm", "huggingface", "torchvision"}
    assert all(check.difference < 1e-5 for check in contest.checks.values())
    assert contest.failed == contest.left_out == {}


def test_peers_are_compared_without_padding_and_ours_at_the_size_itself():
    at = setting((70, 130))
    everyone = [Candidate("ours"), Candidate("timm"), Candidate("huggingface")]
    contest = comparison.admit(at, everyone, weights.random_backbone(at))
    assert {name: check.at for name, check in contest.checks.items()} == {
        "ours": "70x130",
        "timm": "64x64",
        "huggingface": "64x64",
    }
    assert set(contest.models) == {"ours", "timm", "huggingface"}


def test_checkpointing_changes_no_feature():
    at = setting(mode="training")
    everyone = candidates.with_variations(
        candidates.installed(), compiled=False, checkpointing=True
    )
    contest = comparison.admit(at, everyone, weights.random_backbone(at))
    suffixed = {name for name in contest.models if name.endswith("+checkpointing")}
    assert suffixed == {f"{name}+checkpointing" for name in ("ours", "timm", "huggingface")}


def disturbed(monkeypatch, publisher: str) -> None:
    """Make one weight matrix of a publisher's candidate 1 % too large."""
    genuine = comparison.build

    def build(candidate, at, given):
        model = genuine(candidate, at, given)
        if candidate.publisher == publisher:
            with torch.no_grad():
                model.model.layers[2].blocks[0].mlp.fc2.weight.mul_(1.01)
        return model

    monkeypatch.setattr(comparison, "build", build)


def test_a_disturbed_candidate_is_reported_and_not_timed(benchmark, monkeypatch, tmp_path, capsys):
    disturbed(monkeypatch, "timm")
    file = tmp_path / "a.json"
    with pytest.raises(SystemExit) as stopped:
        run(benchmark, "--candidates", "ours", "timm", "torchvision", "--json", file)
    message = str(stopped.value.code)
    assert "timm is not timed" in message and "differ from the reference by" in message
    assert "torchvision" not in message
    (result,) = results.read_results(file)
    assert list(result["candidates"]) == ["ours", "torchvision"]
    assert "timm is NOT TIMED" in capsys.readouterr().out


@pytest.mark.parametrize(
    "found, expected",
    [
        ({"res2": [2.0, -4.0], "res3": [1.0]}, 0.0),
        ({"res2": [2.0, -3.0], "res3": [1.1]}, 0.25),  # of the largest number of that feature
        ({"res2": [2.0, -4.0], "res3": [float("nan")]}, float("inf")),
        ({"res2": [2.0, -4.0]}, float("inf")),
        ({"res2": [2.0, -4.0], "res3": [1.0, 1.0]}, float("inf")),
    ],
)
def test_difference_is_relative_and_infinite_for_other_names_or_shapes(found, expected):
    reference = {"res2": torch.tensor([2.0, -4.0]).double(), "res3": torch.ones(1).double()}
    found = {name: torch.tensor(numbers) for name, numbers in found.items()}
    assert checks.difference(found, reference) == pytest.approx(expected)


def test_a_candidate_that_fails_is_reported_and_not_timed(monkeypatch):
    def fail(*_):
        raise RuntimeError("no such\noperator")

    monkeypatch.setitem(peers.PEERS, "timm", replace(peers.PEERS["timm"], build=fail))
    at = setting()
    everyone = [Candidate("ours"), Candidate("timm")]
    contest = comparison.admit(at, everyone, weights.random_backbone(at))
    assert contest.failed == {"timm": "RuntimeError: no such"}
    assert list(contest.models) == ["ours"]


def test_a_candidate_that_fails_backward_is_reported_and_not_timed(monkeypatch):
    class Forward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

    genuine = peers.PEERS["timm"].stages
    stages = lambda *arguments: [Forward.apply(x) for x in genuine(*arguments)]  # noqa: E731
    monkeypatch.setitem(peers.PEERS, "timm", replace(peers.PEERS["timm"], stages=stages))
    for mode, timed in (("forward", ["timm"]), ("training", [])):
        at = setting(mode=mode)
        contest = comparison.admit(at, [Candidate("timm")], weights.random_backbone(at))
        assert list(contest.models) == timed
    assert contest.failed["timm"].startswith("NotImplementedError")


def test_compiled_candidates_are_compared_too(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda model: model)
    at = setting((70, 130))
    everyone = [Candidate("ours", compiled=True), Candidate("timm", compiled=True)]
    contest = comparison.admit(at, everyone, weights.random_backbone(at))
    found = {name: (check.at, check.to) for name, check in contest.checks.items()}
    assert found == {
        "ours+compile": ("70x130", "the reference"),
        "timm+compile": ("70x130", "not compiled"),
    }
    assert list(contest.models) == list(found)


@pytest.mark.parametrize("name", ["ours", "ours:tiles+checkpointing", "timm+checkpointing+compile"])
def test_a_name_is_parsed_to_a_candidate_of_that_name(name):
    assert candidates.parse(name).name == name


def test_variations_are_made_of_plain_candidates_that_have_them():
    plain = [Candidate("ours"), Candidate("torchvision"), Candidate("timm", compiled=True)]
    found = candidates.with_variations(plain, compiled=True, checkpointing=True)
    assert [candidate.name for candidate in found] == [
        *("ours", "torchvision", "timm+compile"),
        *("ours+checkpointing", "ours+compile", "torchvision+compile"),
    ]


def test_a_peer_whose_parameters_are_not_in_its_layout_fails(monkeypatch):
    genuine = peers.PEERS["timm"].build

    def with_more(*arguments):
        model = genuine(*arguments)
        model.gamma = torch.nn.Parameter(torch.zeros(3))
        return model

    monkeypatch.setitem(peers.PEERS, "timm", replace(peers.PEERS["timm"], build=with_more))
    at = setting()
    contest = comparison.admit(at, [Candidate("timm")], weights.random_backbone(at))
    assert "no weights for 1 parameters: gamma" in contest.failed["timm"]


def test_torchvision_is_left_out_where_its_window_is_larger_than_a_map():
    at = setting((64, 64), window=4)
    contest = comparison.admit(at, [Candidate("torchvision")], weights.random_backbone(at))
    assert "window of 4" in contest.left_out["torchvision"] and not contest.failed


def test_checkpointing_and_triton_are_left_out_where_they_do_not_apply():
    assert candidates.unfit(Candidate("ours", checkpointing=True), setting())
    assert not candidates.unfit(Candidate("ours", checkpointing=True), setting(mode="training"))
    assert candidates.unfit(Candidate("ours", "triton"), setting())
    at = setting(mode="training")
    assert candidates.unfit(Candidate("torchvision", checkpointing=True), at)


def test_microsofts_file_is_left_out_where_it_would_need_to_pad():
    path = Candidate("microsoft", path=ROOT)
    assert candidates.unfit(path, setting((64, 64))) is None
    assert "odd" in candidates.unfit(path, setting((80, 64)))
    assert "does not pad" in candidates.unfit(path, setting((96, 96)))


@pytest.mark.parametrize(
    "size, window, expected",
    [
        ((800, 1333), 8, (768, 1280)),
        ((800, 1333), 16, (1024, 1536)),
        ((768, 1280), 8, (768, 1280)),  # it has nothing to pad
        ((512, 512), 32, (512, 512)),  # nor this: the last map is less than a window
        ((768, 1280), 16, (512, 512)),  # 24x40 in the last stage; 1024 would be one axis unshifted
        ((256, 512), 8, (256, 256)),  # no padding, but one axis of the last map shifted alone
        ((50, 40), 8, (256, 256)),
    ],
)
def test_nearest_size_without_padding(size, window, expected):
    assert settings.nearest_whole(setting(size, window)).size == expected


# The floor


def counted(at: Setting) -> int:
    """Count multiply-adds of linear layers and attention products as tools/analyze_model.py."""
    model = build_backbone("small", window_size=at.window).eval()
    terms = count_terms(model, torch.zeros(at.batch, 3, *at.size))[""]
    return terms["layers"] + terms["qkv"] + terms["products"]


def multiply_adds(at: Setting) -> int:
    return sum(p.multiply_adds * count for p, count in products.products(at).items())


@pytest.mark.parametrize(
    "at",
    [
        setting((64, 64), 2),
        setting((128, 64), 2, batch=3),
        setting((64, 64), 4),  # the last map is half a window
        setting((64, 128), 16),
    ],
    ids=str,
)
def test_floor_counts_as_many_products_as_the_model_where_nothing_is_padded(at):
    assert multiply_adds(at) == counted(at) > 0


def test_floor_has_the_true_tokens_and_the_windows_that_they_fill():
    found = products.products(setting((70, 33), 4))  # maps 18x9, 9x5, 5x3, 3x2
    linear = {p.rows for p in found if p.kind == "linear"}
    assert linear == {18 * 9, 9 * 5, 5 * 3, 3 * 2}
    windows = {p.rows: p.batch for p in found if p.kind == "qk"}
    assert windows == {16: 3 * 2, 12: 2 * 4, 6: 1 * 8}  # 45 tokens and 162 in 16s; heads 1, 2, 4, 8


def test_training_has_both_gradients_of_every_product_except_the_image():
    at = setting()
    stem = 16 * 16 * 48 * 32
    assert multiply_adds(replace(at, mode="training")) == 3 * multiply_adds(at) - stem


@pytest.mark.parametrize("mode", settings.MODES)
def test_every_way_computes_the_whole_product(monkeypatch, mode):
    done = []
    for name in ("mm", "bmm"):
        genuine = getattr(torch, name)

        def record(a, b, out, genuine=genuine):
            done.append(out.numel() * a.shape[-1])
            return genuine(a, b, out=out)

        monkeypatch.setattr(torch, name, record)
    monkeypatch.setattr(ways, "TILES", (60,))
    monkeypatch.setattr(ways, "GROUPS", (100, 2**20))
    at = setting((64, 128), 4, mode=mode)
    found = products.products(at)
    pool = floor._Pool(at, found)
    for product in found:
        for name, call in ways.ways(product, *pool.operands(product)).items():
            done.clear()
            result = call()
            if name.startswith(("mm", "bmm")):
                assert sum(done) == product.multiply_adds, (product, name)
            else:
                assert result.shape == (product.rows, product.columns)


def test_floor_multiplies_every_shape_by_its_count():
    measured = floor.Floor(setting())
    ticks = iter(range(10**6))
    measured.clock = lambda: next(ticks)  # every product takes 1
    assert measured.run() == sum(measured.counts.values())
    assert set(measured.chosen) == set(measured.counts)


# Memory


@pytest.mark.parametrize("resets", [True, False], ids=["kernel", "samples"])
def test_peak_memory_includes_memory_that_is_allocated_and_freed(monkeypatch, resets):
    if resets and not memory.can_reset_peak():
        pytest.skip("this system does not reset peaks")
    monkeypatch.setattr(memory, "can_reset_peak", lambda: resets)

    def call():
        block = torch.ones(100_000_000, dtype=torch.uint8)
        time.sleep(0.05)
        del block
        return torch.ones(20_000_000, dtype=torch.uint8)

    torch.ones(300_000_000, dtype=torch.uint8)  # an earlier peak, which must not count
    found = memory.peak_of(call, "cpu")
    # In a process of many tests, earlier allocations decide how much the allocator keeps.
    assert found["bytes"] == pytest.approx(110e6, rel=0.2)
    assert ("samples" in found["measured_by"]) != resets


def test_peak_memory_of_a_candidate_grows_with_its_images():
    small = memory.of_candidate(Candidate("timm"), setting((64, 64), mode="training"))
    large = memory.of_candidate(Candidate("timm"), setting((512, 512), mode="training"))
    # 16384 tokens of 32 channels: qkv, hidden layer and more than 20 maps of the first stage alone
    assert large["bytes"] > small["bytes"] + 16384 * 32 * 4 * 20


@pytest.mark.slow
def test_memory_is_measured_in_a_separate_process():
    at = Setting("swinv2_tiny_window8_256", 2, (64, 64), mode="training")
    script = ROOT / "tools" / "benchmark.py"
    found = memory.in_process_of_its_own(script, Candidate("ours"), at)
    gradients = 4 * sum(p.numel() for p in build_backbone(at.model).parameters())
    assert gradients < found["bytes"] < 2 * gradients
    lost = Candidate("microsoft", path=ROOT / "absent.py")
    assert "there is no file" in memory.in_process_of_its_own(script, lost, at)["error"]


# Scaling


def test_cost_of_a_pixel_is_relative_to_the_first_setting(monkeypatch):
    monkeypatch.setattr(scaling, "device_clock", lambda device: iter(range(10**6)).__next__)
    found = scaling.scale(
        [setting((64, 64)), setting((64, 96), threads=2)],
        Candidate("ours"),
        comparison.Plan(rounds=2),
    )
    first, second = figures.scaling_figures(found)  # the clock says 1 s for each
    assert first.over_first.median == 1
    assert first.ns_per_pixel.median == 1e9 / 64**2
    assert second.over_first.median == pytest.approx(64 / 96)
    assert second.setting.threads == 2 and not found["failed"]


def test_scaling_settings_are_those_of_the_aims():
    at = setting(window=8)
    assert [s.size[0] for s in scaling.linear_cost(at)] == [512, 1024, 1536, 2048]
    assert [s.size for s in scaling.padding_cost(at)] == [(768, 1280), (800, 1333)]
    assert [s.threads for s in scaling.threads_scaling(at)] == [1, 2]


# Results


def job(work, name="a") -> jobs.Job:
    def content() -> dict:
        machine = jobs.describe("cpu", 1)
        candidates = {"candidates": {name: {}}, "failed": {}}
        return {"setting": setting().as_json(), "machine": machine} | candidates | work()

    return jobs.Job(results.COMPARISON, "Forward", (name,), (setting(),), content)


def test_results_are_not_measured_again_unless_asked(tmp_path):
    done = []

    def work():
        done.append(1)
        return {"number": len(done)}

    def measured(again=False, name="a"):
        kept = results.Results(tmp_path / "a.json")
        return [one["number"] for one in jobs.measure([job(work, name)], kept, again)]

    assert measured() == [1] and measured() == [1]
    assert measured(name="b") == [2]
    assert measured(again=True) == [3] and measured() == [3]
    assert len(results.read_results(tmp_path / "a.json")) == 2


def test_results_of_jobs_before_a_failure_are_kept(tmp_path):
    def fail():
        raise RuntimeError

    kept = results.Results(tmp_path / "a.json")
    with pytest.raises(RuntimeError):
        list(jobs.measure([job(dict), job(fail, "b")], kept, again=False))
    assert len(results.read_results(tmp_path / "a.json")) == 1


def test_a_result_on_another_machine_is_another_result(monkeypatch):
    here = job(dict).identity
    monkeypatch.setattr(jobs, "describe", lambda *_: OTHER_MACHINE)
    assert job(dict).identity != here and "Abacus" in job(dict).identity


OTHER_MACHINE = {"cpu": "Abacus", "cores": 1, "avx512": False, "threads": 1, "torch": "0"}


# int8


def test_linear_layers_become_int8_except_for_the_position_bias():
    model = weights.random_backbone(setting())
    found = quantized.quantize(model)
    kinds = {name: type(module) for name, module in found.named_modules()}
    block = "layers.0.blocks.0"
    for name in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"):
        assert kinds[f"{block}.{name}"] is torch.ao.nn.quantized.dynamic.Linear
    assert kinds["layers.1.downsample.reduction"] is torch.ao.nn.quantized.dynamic.Linear
    assert kinds[f"{block}.attn.cpb_mlp.0"] is torch.nn.Linear
    assert type(model.layers[0].blocks[0].mlp.fc1) is torch.nn.Linear  # it is a copy
    assert quantized.file_size(found) < 0.6 * quantized.file_size(model)


def test_errors_are_those_of_the_worst_feature():
    expected = {"a": torch.tensor([1.0, -4.0]), "b": torch.tensor([2.0, 2.0])}
    found = {"a": torch.tensor([2.0, -4.0]), "b": torch.tensor([2.0, 1.8])}
    seen = quantized.errors(found, expected)
    assert seen["max_error"] == 1 / 4 and seen["mean_error"] == pytest.approx(0.5 / 2.5)


def test_int8_is_compared_with_float32_in_turns(benchmark, capsys):
    run(benchmark, "--int8", "--table")
    text = capsys.readouterr().out
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")][2:]
    assert [row[0].strip("| ") for row in rows] == [
        *("float32", "float32 by modules", "int8 linear layers")
    ]
    exact, modules, int8 = (float(row[5]) for row in rows)
    assert exact == 0 and modules < 1e-4 < int8 < 0.5


# Attention alone


@pytest.fixture
def attention_on_cpu(monkeypatch) -> None:
    """Use Triton's interpreter without FlexAttention; every call takes a second."""
    pytest.importorskip("triton")
    monkeypatch.setattr(attention, "COPIED", 8)
    monkeypatch.setattr(attention, "MULTIPLIED", 8)
    monkeypatch.setattr(attention, "_seconds", lambda call: float(call() is not None))
    monkeypatch.delitem(attention.CANDIDATES, attention.FLEX_CORE)


def test_attention_alone_is_timed_against_its_roofline(attention_on_cpu):
    at = setting((64, 64), window=8, dtype="float16")
    found = attention.compare_attention(at)
    assert list(found["rows"]) == ["ours", "SDPA", "SDPA, core"] and not found["failed"]
    tokens, channels, bandwidth, rate = 16 * 16, at.variant.embed_dim, 2 * 8 * 2, 2 * 8**3
    assert (found["bandwidth"], found["rate"]) == (bandwidth, rate)
    moved = [rows * tokens * channels * 2 / bandwidth for rows in (4, 12)]
    worked = [products * 2 * tokens * channels * 64 / rate for products in (2, 7)]
    for row in found["rows"].values():
        assert row["seconds"] == [1.0, 1.0]
        assert row["roofline"] == [max(floors) for floors in zip(moved, worked)]
    text = report.attention_table(found)
    assert "| ours | 1000000 |" in text and "window 8, 64x64" in text


def test_wrong_attention_is_not_timed(attention_on_cpu, monkeypatch):
    def wrong(case):
        forward, both = attention._sdpa(case)
        return lambda: 1.1 * forward(), both

    monkeypatch.setitem(attention.CANDIDATES, attention.SDPA, wrong)
    found = attention.compare_attention(setting((64, 64), window=8, dtype="float16"))
    assert "its result is off by 1.0e-01" in found["failed"]["SDPA"]
    assert "SDPA" not in found["rows"]
    assert list(report.failures([found]))


def test_attention_alone_needs_a_gpu(benchmark):
    with pytest.raises(SystemExit, match="on a GPU, in half precision"):
        run(benchmark, "--attention", "--sizes", "64x64")


# The suite


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_suite_has_every_job_once_at_known_models_and_sizes(monkeypatch, device):
    monkeypatch.setattr(jobs, "describe", lambda *_: OTHER_MACHINE)
    plan = comparison.Plan(time_limit=120)
    todo = suite.suite(setting(device=device, threads=2), candidates.installed(), plan)
    identities = [one.identity for one in todo]
    assert len(set(identities)) == len(identities)
    kinds = {results.COMPARISON, results.SCALING, results.DETECTOR}
    kinds.add(results.INT8 if device == "cpu" else results.ATTENTION)
    assert {one.kind for one in todo} == kinds
    assert all(suite.estimated_seconds(one, plan) > 0 for one in todo)
    assert all(one.model in VARIANTS for each in todo for one in each.turns)
    assert {one.device for each in todo for one in each.turns} == {device}


@pytest.mark.slow
def test_suite_is_one_command_that_makes_all_tables_and_continues(benchmark, monkeypatch, tmp_path):
    entry = suite.Entry("Forward", "forward", (2,), ("64x64", "70x50"), model="small")
    monkeypatch.setattr(suite, "ON_CPU", (entry, replace(entry, section="Two", batch=2)))
    monkeypatch.setattr(suite, "TINY", "small")
    monkeypatch.setattr(scaling, "SIDES", (64, 96))
    monkeypatch.setattr(scaling, "PADDED", (70, 100))
    monkeypatch.setattr(suite, "DETECTOR_SIZES", ("64x64",))
    monkeypatch.setattr(detector, "OBJECTS", 2)
    monkeypatch.setattr(suite, "SCALED_AT", "64x64")
    monkeypatch.setattr(suite, "INT8_SIZES", ("64x64",))
    files = {kind: tmp_path / f"a.{kind}" for kind in ("json", "markdown", "picture")}
    options = [part for kind, file in files.items() for part in (f"--{kind}", file)]
    options[-1] = files["picture"] = tmp_path / "a.png"
    run(benchmark, "--suite", *options)
    markdown = files["markdown"].read_text()
    for words in (
        "### Forward",
        "### Two",
        "### Threads",
        "### Detectors",
        "### int8",
        "Ours at all settings",
    ):
        assert words in markdown
    assert "has no detectron2.modeling.backbone.swin" in markdown or "Swin V1" in markdown
    assert files["picture"].stat().st_size > 1000
    monkeypatch.setattr(jobs, "compare", None)  # it would fail if it were called again
    run(benchmark, "--suite", *options)
    assert files["markdown"].read_text() == markdown


# The detector


def test_a_missing_swin_v1_is_reported(monkeypatch):
    monkeypatch.setattr(detector, "SWIN_V1", "detectron2.modeling.backbone.absent")
    assert "no detectron2.modeling.backbone.absent" in detector.unfit_swin_v1()


@pytest.mark.slow
@pytest.mark.parametrize("mode", settings.MODES)
def test_detectors_differ_in_their_backbone_alone(mode):
    models, _ = detector.build_detectors(setting(mode=mode))
    ours, r50 = models["ours"], models["detectron2 R50"]

    def shapes(model):
        """Return those of all parameters outside the backbone, and of the FPN's outputs."""
        return [
            (name, p.shape)
            for name, p in model.named_parameters()
            if not name.startswith("backbone.") or "fpn_output" in name
        ]

    assert shapes(ours) == shapes(r50) and len(shapes(ours)) > 20
    assert sum(p.numel() for p in ours.parameters()) != sum(p.numel() for p in r50.parameters())


@pytest.mark.slow
def test_detectors_find_the_largest_number_of_objects():
    at = setting((96, 128))
    models, _ = detector.build_detectors(at)
    for model in models.values():
        (found,) = detector.step(model, detector.random_batch(at), at)()
        assert len(found["instances"]) == 100


# The command


def test_command_times_all_candidates_and_keeps_every_round(benchmark, tmp_path, capsys):
    file, picture = tmp_path / "a.json", tmp_path / "a.png"
    options = ["--mode", "both", "--json", file, "--picture", picture, "--table"]
    run(benchmark, "--candidates", "ours", "ours:reference", "timm", *options)
    forward, training = results.read_results(file)
    found = [Setting.from_json(one["setting"]).mode for one in (forward, training)]
    assert tuple(found) == settings.MODES
    for result in (forward, training):
        assert list(result["candidates"]) == ["ours", "ours:reference", "timm"]
        assert result["machine"]["torch"] == torch.__version__
        assert result["machine"]["threads"] == 1 and result["machine"]["cpu"]
        assert len(result["floor"]) == 2
        for content in result["candidates"].values():
            assert len(content["ms"]) == 2 and content["difference"] is not None and content["at"]
        for one in figures.comparison_figures(result).values():
            assert one.over_eager is not None and one.floor.median > 0
    shown = capsys.readouterr().out
    assert report.comparison_table(training) in shown and "forward + backward" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_titles_say_whether_half_precision_is_autocast(benchmark, capsys):
    run(benchmark, "--candidates", "ours", "--dtype", "bfloat16", "--mode", "both")
    shown = capsys.readouterr().out
    assert "bfloat16 (model and images), forward\n" in shown
    assert "bfloat16 (autocast), forward + backward\n" in shown


@pytest.mark.parametrize(
    "options, word",
    [
        (("--candidates", "timn"), "there are: ours, ours:reference, ours:tiles, ours:triton, ti"),
        (("--candidates", "ours:fast"), "unknown candidate 'ours:fast'"),
        (("--candidates", "timm:tiles"), "unknown candidate"),
        (("--candidates", "microsoft"), "microsoft=PATH"),
        (("--candidates", "microsoft=absent.py"), "there is no file absent.py"),
        (("--sizes", "512"), "HEIGHTxWIDTH in pixels, such as 768x1280, not '512'"),
        (("--sizes", "0x64"), "not '0x64'"),
        (("--model", "swinv2_medium"), "unknown variant 'swinv2_medium'"),
        (("--window", "0"), "--window"),
        (("--rounds", "0"), "--rounds"),
        (("--json", "absent/a.json"), "absent"),
        (("--picture", "absent/a.png"), "absent"),
        (("--int8", "--mode", "both"), "int8 is compared with float32, forward, on the CPU"),
        (("--int8", "--dtype", "bfloat16"), "int8 is compared with float32"),
    ],
)
def test_bad_input_is_refused_in_one_line_before_any_work(benchmark, monkeypatch, options, word):
    monkeypatch.setattr(benchmark, "run", None)  # it would fail if it were called
    with pytest.raises(SystemExit) as stopped:
        run(benchmark, *options)
    message = stopped.value.code
    assert message.startswith("ValueError: ") and word in message and "\n" not in message


def test_a_candidate_that_is_not_installed_is_refused(benchmark, monkeypatch):
    absent = replace(peers.PEERS["timm"], module="timm_is_absent")
    monkeypatch.setitem(peers.PEERS, "timm", absent)
    with pytest.raises(SystemExit, match="timm_is_absent is not installed"):
        run(benchmark, "--candidates", "timm")
    assert "timm" not in [candidate.name for candidate in candidates.installed()]


def test_a_missing_gpu_is_refused(benchmark, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="no GPU"):
        run(benchmark, "--device", "cuda")


def test_a_json_file_of_another_kind_is_refused(benchmark, tmp_path):
    (tmp_path / "a.json").write_text("[1]")
    with pytest.raises(SystemExit, match="has no results of this tool"):
        run(benchmark, "--json", tmp_path / "a.json")


def test_the_variable_that_overrides_kernels_is_refused(benchmark, monkeypatch):
    monkeypatch.setenv("SWINV2_KERNEL", "reference")
    with pytest.raises(SystemExit, match="unset SWINV2_KERNEL"):
        run(benchmark)


def test_the_set_whose_loading_is_timed_is_sound(tmp_path, monkeypatch):
    monkeypatch.setattr(startup, "LINKS", 3)
    startup.generate(tmp_path, images=12)
    content = json.loads((tmp_path / "train.json").read_text())
    options = {"masks": True, "mask_format": "polygon", "for_evaluation": True}
    _, report = check_coco(content, "train.json", str(tmp_path / "images"), **options)
    assert str(report) == "train.json: no faults"
    assert len(content["images"]) == 12 and len(content["annotations"]) > 50
    before = (tmp_path / "train.json").stat().st_mtime_ns
    startup.generate(tmp_path, images=12)
    assert (tmp_path / "train.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("kind", startup.KINDS)
def test_loading_is_timed_in_every_way(tmp_path, kind):
    startup.generate(tmp_path, images=4)
    found = startup.run(kind, tmp_path)
    assert found["seconds"] > 0 and found["peak"] > 0
    DatasetCatalog.pop("startup", None)
    MetadataCatalog.pop("startup", None)


def test_processes_are_compared_with_one_on_the_same_threads():
    asked = []
    rates = {(1, 2): [10.0, 20.0, 30.0], (1, 4): [12.0, 26.0, 36.0], (2, 2): [20.0, 30.0, 60.0]}

    def measure(processes_, threads):
        asked.append((processes_, threads))
        return rates[processes_, threads][(len(asked) - 1) // 3]

    assert processes.table(2, 2, 3, measure)[2:] == [
        "| 1 | 2 | 20.00 | 1.00 |",
        "| 1 | 4 | 26.00 | 1.20 |",
        "| 2 | 2 | 30.00 | 2.00 |",
    ]
    assert asked == [*rates] * 3  # in turns


def test_the_rate_is_that_of_the_last_line_of_progress():
    text = "1 of 4 images, 3.5 images/s, 0:00:09 left\n4 of 4 images, 4.25 images/s, 0:00:00 left"
    assert processes.RATE.findall(text)[-1] == "4.25"
