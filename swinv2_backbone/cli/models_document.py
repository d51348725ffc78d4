"""docs/MODELS.md: tables of all variants, and the table of one by stage."""

from __future__ import annotations

from collections.abc import Sequence

from tqdm import tqdm

from swinv2_backbone.cli.flops import Cost, analyze, deviations, total
from swinv2_backbone.variants import RELEASES, VARIANTS

DOCUMENT = """\
# The models

This page is written by `tools/analyze_model.py --write docs/MODELS.md`. `--table` prints the tables
alone, and `--model NAME --image-size HEIGHT WIDTH --window-size M` counts one model by stage at any
size.

{tables}

The numbers are multiply-adds for one image of the given size, counted with fvcore on a forward of
the model. Parameters include a head of 1000 classes; a detector uses the backbone alone.
"Published" are mmpretrain's numbers (parameters, seed FLOPs, accuracy on ImageNet-1k) and the count
of Microsoft's code (full FLOPs; their README rounds it to 0.1 G). The last two models have no
published weights, and the paper does not give their numbers of heads.

Both conventions leave out softmax, GELU and other elementwise work. They differ in:

| | seed FLOPs (mmpretrain) | full FLOPs (Microsoft) |
|---|---|---|
| convolution and linear layers | yes | yes |
| qkv and both products of attention | no | yes |
| MLP of the position bias | yes | no (in eval it runs once and is cached) |
| LayerNorm, an element | 2 | 1 |
| pooling, an element | 1 | 0 |

Two published numbers differ from ours. Two of the three large models are published with 0.01 M
parameters more than the third, which has the same architecture. The full FLOPs of the models for
192 px are published with a head of 21841 classes, which is up to 0.2 % more.
"""

COSTS = (
    "| variant | image | params M | published | backbone M | seed FLOPs G | published "
    "| full FLOPs G | published | top-1 / top-5 |\n|---|---|---|---|---|---|---|---|---|---|"
)
SHAPES = (
    "| variant | seed name | C | depths | heads | windows | pretrained windows |\n"
    "|---|---|---|---|---|---|---|"
)


def cost_row(name: str, parts: dict[str, Cost]) -> str:
    """Return the row of a variant: counted beside published."""
    whole, release = total(parts), RELEASES.get(name)
    published, accuracy = ["-", "-", "-"], "-"
    if release:
        numbers = (release.parameters, release.seed_flops, release.full_flops)
        published = [f"{number:.2f}" for number in numbers]
        if release.top1:
            accuracy = f"{release.top1:.2f} / {release.top5:.2f}"
    return _row(
        name,
        str(VARIANTS[name].image_size),
        f"{whole.parameters / 1e6:.2f}",
        published[0],
        f"{(whole.parameters - parts['head'].parameters) / 1e6:.2f}",
        f"{whole.seed_flops / 1e9:.2f}",
        published[1],
        f"{whole.full_flops / 1e9:.2f}",
        published[2],
        accuracy,
    )


def shape_row(name: str) -> str:
    variant, release = VARIANTS[name], RELEASES.get(name)
    per_stage = (
        variant.depths,
        variant.num_heads,
        variant.window_sizes,
        variant.pretrained_window_sizes,
    )
    return _row(
        name,
        release.seed_name if release else "-",
        str(variant.embed_dim),
        *(", ".join(map(str, numbers)) for numbers in per_stage),
    )


def tables(cost_rows: Sequence[str]) -> str:
    """Return both tables, given the rows of the first."""
    return "\n".join([COSTS, *cost_rows, "", SHAPES, *map(shape_row, VARIANTS)])


def document(cost_rows: Sequence[str]) -> str:
    """Return docs/MODELS.md, given the rows of the first table."""
    return DOCUMENT.format(tables=tables(cost_rows))


def stage_table(parts: dict[str, Cost]) -> str:
    """Return the costs of the parts of one model, of its backbone and of all."""
    whole = total(parts)
    backbone = total({part: cost for part, cost in parts.items() if part != "head"})
    lines = [
        "| part | params M | layers G | qkv G | products G | bias MLP G | full FLOPs G "
        "| seed FLOPs G |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for part, cost in {**parts, "backbone": backbone, "all": whole}.items():
        terms = (cost.terms[term] for term in ("layers", "qkv", "products", "bias"))
        flops = (*terms, cost.full_flops, cost.seed_flops)
        lines.append(
            _row(part, f"{cost.parameters / 1e6:.2f}", *(f"{number / 1e9:.2f}" for number in flops))
        )
    return "\n".join(lines)


def analyze_all() -> tuple[list[str], list[str]]:
    """Return the rows of the table of costs, and the deviations, of all variants."""
    rows, found = [], []
    for name in tqdm(VARIANTS, desc="counting", unit="model"):
        parts = analyze(name)
        rows.append(cost_row(name, parts))
        found += deviations(name, total(parts))
    return rows, found


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
