"""tools/analyze_model.py: its counts, operators that it refuses to count, and docs/MODELS.md."""

from collections import Counter
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from models import backbone
from scripts import ROOT
from scripts import tool as load
from torch import nn

from swinv2_backbone import VARIANTS, Variant, build_classifier
from swinv2_backbone.cli import flops, models_document
from swinv2_backbone.variants import RELEASES

DOCUMENT = ROOT / "docs" / "MODELS.md"
FAST = ("swinv2_tiny_window8_256", "swinv2_tiny_window16_256")


def variants(names):
    """Return names as parameters; all but the smallest models are slow."""
    return [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.fixture(scope="module")
def tool():
    """Load the command as a module."""
    return load("analyze_model")


@pytest.fixture(scope="module")
def parts():
    """Return a function that counts the parts of a variant once."""
    return cache(flops.analyze)


# The published numbers


@pytest.mark.parametrize("name", variants(RELEASES))
def test_counts_are_as_published(parts, name):
    whole, release = flops.total(parts(name)), RELEASES[name]
    assert flops.deviations(name, whole) == []
    # Closer than the tolerance: without the MLP of the bias the count is off by 0.4 % or more.
    assert whole.parameters / 1e6 == pytest.approx(release.parameters, abs=0.0101)
    assert whole.seed_flops / 1e9 == pytest.approx(release.seed_flops, abs=0.0051)
    head_of_21841 = 20841 * 8 * VARIANTS[name].embed_dim if release.num_classes == 21841 else 0
    full_flops = (whole.full_flops + head_of_21841) / 1e9
    assert full_flops == pytest.approx(release.full_flops, abs=0.0051)


@pytest.mark.parametrize(
    "change, word",
    [
        ({"parameters": 20_000}, "28.37 M parameters, published 28.35 M"),
        ({"parameters": -20_000}, "28.33 M parameters"),
        ({"bias": 60_000_000}, "seed FLOPs, published 4.35 G"),
        ({"products": 70_000_000}, "full FLOPs, published 5.93 G"),
        ({"qkv": -70_000_000}, "full FLOPs"),
    ],
)
def test_a_deviation_is_found(parts, change, word):
    whole = flops.total(parts(FAST[0]))
    change = flops.Cost(change.pop("parameters", 0), Counter(change))
    wrong = flops.Cost(whole.parameters + change.parameters, Counter(whole.terms))
    wrong.terms.update(change.terms)
    (found,) = flops.deviations(FAST[0], wrong)
    assert word in found and FAST[0] in found


def test_a_deviation_fails_the_table_and_writes_no_document(tool, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(models_document, "analyze_all", lambda: (["| a row |"], ["tiny: wrong"]))
    with pytest.raises(SystemExit, match="not as published:\ntiny: wrong"):
        tool.main(["--table"])
    assert "| a row |" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="tiny: wrong"):
        tool.main(["--write", str(tmp_path / "MODELS.md")])
    assert not (tmp_path / "MODELS.md").exists()


# The document


def rows_of_costs() -> list[str]:
    """Return the rows of the first of the two tables, that of the costs."""
    rows = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| swinv2_")]
    return rows[: len(rows) // 2]


@pytest.mark.parametrize("name", variants(VARIANTS))
def test_document_has_the_counted_row(parts, name):
    assert models_document.cost_row(name, parts(name)) in rows_of_costs()


def test_document_is_what_the_tool_writes(tool, monkeypatch, tmp_path):
    rows = rows_of_costs()
    assert [row.split(" | ")[0] for row in rows] == [f"| {name}" for name in VARIANTS]
    monkeypatch.setattr(models_document, "analyze_all", lambda: (rows, []))
    tool.main(["--write", str(tmp_path / "MODELS.md")])
    assert (tmp_path / "MODELS.md").read_text() == DOCUMENT.read_text()


# The counting


@pytest.mark.parametrize("height, width", [(16, 16), (9, 6), (3, 3), (2, 7)])
@pytest.mark.parametrize("depth", [1, 2])
def test_blocks_cost_what_the_formula_says(height, width, depth):
    dim, heads, window = 24, 3, 4
    model = backbone(
        {"embed_dim": dim, "depths": (depth,), "num_heads": (heads,), "window_size": window},
        out_features=("res2",),
    ).eval()
    terms = flops.count_terms(model, torch.zeros(1, 3, 4 * height, 4 * width))[""]

    tall, wide = min(window, height), min(window, width)
    tokens, seats = height * width, -(-height // tall) * tall * (-(-width // wide) * wide)
    offsets = (2 * window - 1) ** 2
    assert terms == {
        "layers": tokens * 48 * dim + depth * tokens * 9 * dim**2,
        "qkv": depth * tokens * 3 * dim**2,
        "products": depth * 2 * seats * (tall * wide) * dim,
        "bias": depth * offsets * 512 * (2 + 1 + heads),  # first layer, ReLU, second layer
        "norms": tokens * dim * (2 + 2 * depth),
    }
    cost = flops.Cost(0, terms)
    assert cost.full_flops - cost.seed_flops == (
        terms["qkv"] + terms["products"] - terms["bias"] - terms["norms"]
    )


def test_parts_make_the_whole_and_need_no_weights():
    parts = flops.analyze(FAST[0], (64, 96))
    model = build_classifier(FAST[0], num_classes=1000).eval()
    terms = flops.count_terms(model, torch.randn(1, 3, 64, 96))
    assert flops.total(parts) == flops.Cost(sum(p.numel() for p in model.parameters()), terms[""])
    assert parts["stage 3"].terms == terms["backbone.layers.2"]
    assert parts["head"] == flops.Cost(769_000, Counter(layers=768_000, pooled=768 * 2 * 3))


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * x


@pytest.mark.parametrize(
    "operator, call",
    [
        ("aten::einsum", lambda x: torch.einsum("tc,tc->tc", x, x)),
        ("aten::bmm", lambda x: torch.bmm(x[None], x.t()[None])[0] @ x),
        ("aten::addmm", lambda x: torch.addmm(x, x @ x.t(), x)),
        ("aten::scaled_dot_product_attention", lambda x: F.scaled_dot_product_attention(x, x, x)),
        ("prim::PythonOp.Square", Square.apply),
        ("aten::cumsum", lambda x: x.cumsum(0)),
    ],
)
def test_an_unknown_operator_is_an_error(operator, call):
    class Unknown(nn.Module):
        def forward(self, x):
            return call(x)

    model = backbone().eval()
    model.layers[1].blocks[0].mlp = Unknown()
    with pytest.raises(RuntimeError, match=rf"is unknown: \['{operator}'\]"):
        flops.count_terms(model, torch.zeros(1, 3, 32, 32))


# The command


def test_a_model_is_shown_by_stage_at_any_size(tool, capsys, monkeypatch):
    small = Variant(32, (1, 2, 1, 1), (1, 2, 4, 8), (8,) * 4, (8,) * 4, 64)
    monkeypatch.setitem(VARIANTS, "small", small)
    tool.main(["--model", "small", "--image-size", "62", "100", "--window-size", "4"])
    shown = capsys.readouterr().out
    assert "62 x 100 pixels, windows 4\n" in shown
    parts = flops.analyze("small", (62, 100), 4)
    for part in (*parts, "backbone", "all"):
        assert f"\n| {part} |" in shown
    assert models_document.stage_table(parts) in shown
    assert flops.total(parts).terms != flops.total(flops.analyze("small", (62, 100))).terms


def test_one_number_is_a_square_and_a_seed_name_is_a_name(tool, capsys):
    tool.main(["--model", "swinv2-tiny-w8_3rdparty_in1k-256px", "--image-size", "64"])
    assert models_document.stage_table(flops.analyze(FAST[0], (64, 64))) in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, word",
    [
        (("--model", "swinv2_medium"), "'swinv2_medium'"),
        (("--model", FAST[0], "--image-size", "0"), "0 x 0"),
        (("--model", FAST[0], "--image-size", "64", "-64"), "64 x -64"),
        (("--model", FAST[0], "--image-size", "64", "64", "3"), "got 3"),
        (("--model", FAST[0], "--image-size", "64", "--window-size", "0"), "window_size"),
        (("--model", FAST[0], "--image-size", "64", "--window-size", "8", "8"), "window_size"),
    ],
)
def test_bad_input_is_refused_in_one_line(tool, options, word):
    with pytest.raises(SystemExit) as stopped:
        tool.main(list(options))
    message = stopped.value.code
    assert message.startswith("ValueError: ") and word in message and "\n" not in message


@pytest.mark.parametrize("options", [(), ("--table", "--image-size", "64")])
def test_options_that_do_not_go_together_are_refused(tool, options, capsys):
    with pytest.raises(SystemExit):
        tool.main(list(options))
    assert "error:" in capsys.readouterr().err


def test_a_document_that_cannot_be_written_is_reported_in_one_line(tool, monkeypatch, tmp_path):
    monkeypatch.setattr(models_document, "analyze_all", lambda: ([], []))
    with pytest.raises(SystemExit, match="^OSError: .*MODELS.md cannot be written"):
        tool.main(["--write", str(tmp_path / "absent" / "MODELS.md")])
