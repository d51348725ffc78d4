#!/usr/bin/env python
"""Count the parameters and multiply-adds of models, and the memory to train them.

tools/analyze_model.py --table                   all variants, beside the published numbers
tools/analyze_model.py --write docs/MODELS.md    the same as a document
tools/analyze_model.py --model swinv2_tiny_window8_256 --image-size 800 1333 --window-size 16
tools/analyze_model.py --memory --model swinv2_giant --image-size 1536 --processes 64 \
    --checkpointing                              what a GPU must hold to train it
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import torch
import training_memory
from fvcore.nn import FlopCountAnalysis
from fvcore.nn.jit_handles import conv_flop_jit, get_shape, linear_flop_jit, matmul_flop_jit
from torch import nn
from tqdm import tqdm

from swinv2_backbone import VARIANTS, build_classifier
from swinv2_backbone.variants import RELEASES, variant_name

CLASSES = 1000
PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
PARAMETERS_TOLERANCE = 0.01  # millions: one in the last digit that is printed
FLOPS_TOLERANCE = 0.01  # of the published number

# Operators that no published count has anything for, besides those that fvcore knows to be free.
MOVES = {"prim::PythonOp._Permute", "aten::index_select", "aten::unflatten", "aten::pad"}
ELEMENTWISE = {
    *("aten::add", "aten::add_", "aten::sub", "aten::rsub", "aten::mul", "aten::div", "aten::neg"),
    *("aten::abs", "aten::sign", "aten::exp", "aten::log2", "aten::sigmoid", "aten::gelu"),
    *("aten::softmax", "aten::linalg_vector_norm", "aten::clamp_min", "aten::expand_as"),
}
LAYOUT = {  # which token goes where, and what it must not attend to
    *("aten::cartesian_prod", "aten::empty_like", "aten::where", "aten::masked_fill_"),
    *("aten::__or__", "aten::ne", "aten::lt"),
}
FREE = MOVES | ELEMENTWISE | LAYOUT


@dataclass(frozen=True)
class Cost:
    """What a part of a model costs for one image.

    Attributes:
        parameters: number of them.
        terms: multiply-adds of "qkv", of "products" (both matrix products of attention), of
            "bias" (the MLP of the position bias) and of "layers" (all other convolutions and
            linear layers); elements of "norms" and of the "pooled" map.
    """

    parameters: int
    terms: Counter[str]

    @property
    def seed_flops(self) -> int:
        """As mmpretrain counts: by modules, so without what is no module: qkv and products.

        It has the MLP of the bias with its ReLU, 2 for an element of a LayerNorm and 1 for one of
        the pooled map.  (It also has the bias of the patch embedding, which is 0.01 %.)
        """
        t = self.terms
        return t["layers"] + t["bias"] + 2 * t["norms"] + t["pooled"]

    @property
    def full_flops(self) -> int:
        """As Microsoft counts: qkv and products too, but neither the MLP of the bias nor pooling.

        It has 1 for an element of a LayerNorm.  (It takes the last LayerNorm for four times its
        size, which is 0.003 %.)
        """
        t = self.terms
        return t["layers"] + t["qkv"] + t["products"] + t["norms"]

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.terms + other.terms)


def count_terms(model: nn.Module, images: torch.Tensor) -> dict[str, Counter[str]]:
    """The terms of a :class:`Cost` of every module by its name, "" for all, of a real forward.

    Raises:
        RuntimeError: the forward has an operator that is neither counted nor known to be free.
    """
    analysis = FlopCountAnalysis(model, images).clear_op_handles().set_op_handle(**_HANDLES)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    with torch.no_grad():
        terms = analysis.by_module_and_operator()
    unknown = analysis.unsupported_ops().keys() - FREE
    if unknown:
        raise RuntimeError(f"it is not known what these operators cost: {sorted(unknown)}")
    return terms


def _owner(outputs: list) -> str:
    """The last name of the module in whose forward an operator is."""
    return outputs[0].node().scopeName().rpartition(".")[2]


def _convolution(inputs: list, outputs: list) -> Counter[str]:
    return Counter(layers=sum(conv_flop_jit(inputs, outputs).values()))


def _linear(inputs: list, outputs: list) -> Counter[str]:
    term = {"qkv": "qkv", "cpb_mlp": "bias"}.get(_owner(outputs), "layers")
    return Counter({term: linear_flop_jit(inputs, outputs)})


def _matmul(inputs: list, outputs: list) -> Counter[str]:
    term = "products" if _owner(outputs) == "attn" else "layers"
    return Counter({term: matmul_flop_jit(inputs, outputs)})


def _elements(term: str):
    return lambda inputs, outputs: Counter({term: prod(get_shape(inputs[0]))})


_HANDLES = {
    "aten::_convolution": _convolution,
    "aten::linear": _linear,
    "aten::matmul": _matmul,
    "aten::layer_norm": _elements("norms"),
    "aten::relu_": _elements("bias"),  # there is no other ReLU
    "aten::mean": _elements("pooled"),
}


def analyse(
    name: str,
    image_size: tuple[int, int] | None = None,
    window_size: int | Sequence[int] | None = None,
) -> dict[str, Cost]:
    """The cost of every part of a classifier with 1000 classes; together they are the whole.

    Args:
        name: of a variant, or its seed name.
        image_size: (height, width) in pixels; default: the variant's.
        window_size: default: the variant's.

    Raises:
        ValueError: the name is unknown or a size is not positive.
    """
    variant = VARIANTS[variant_name(name)]
    height, width = image_size or (variant.image_size, variant.image_size)
    if min(height, width) < 1:
        raise ValueError(f"the image size must be positive, got {height} x {width}")
    model = _without_memory(name, window_size)
    terms = count_terms(model, torch.zeros(1, 3, height, width))

    def cost(module: str) -> Cost:
        return Cost(count_parameters(model.get_submodule(module)), terms[module])

    parts = {"patch embedding": cost("backbone.patch_embed")}
    for stage in range(len(variant.depths)):
        parts[f"stage {stage + 1}"] = cost(f"backbone.layers.{stage}")
    parts["output norm"] = cost("backbone.norms.res5")
    parts["head"] = Cost(cost("head").parameters, terms[""] - terms["backbone"])  # and pooling
    return parts


def count_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def total(parts: dict[str, Cost]) -> Cost:
    return sum(parts.values(), start=Cost(0, Counter()))


def _without_memory(name: str, window_size: int | Sequence[int] | None) -> nn.Module:
    """A classifier every weight of which is one zero, seen in the shape of the weight.

    So that the billions of weights of the giant need neither memory nor random numbers.
    """
    with torch.device("meta"):
        model = build_classifier(name, num_classes=CLASSES, window_size=window_size)
    for module in model.modules():
        for key, weight in list(module.named_parameters(recurse=False)):
            zero = torch.zeros((), dtype=weight.dtype).expand(weight.shape)
            setattr(module, key, nn.Parameter(zero, requires_grad=False))
    return model.eval()


def deviations(name: str, whole: Cost) -> list[str]:
    """What of a variant is not as published, in words; nothing if it was never published."""
    release = RELEASES.get(name)
    if release is None:
        return []
    found = []
    parameters = round(whole.parameters / 1e6, 2)
    if abs(parameters - release.parameters) > PARAMETERS_TOLERANCE + 1e-9:
        found.append(f"{name}: {parameters:.2f} M parameters, published {release.parameters:.2f} M")
    for kind, flops, published in (
        ("seed", whole.seed_flops / 1e9, release.seed_flops),
        ("full", whole.full_flops / 1e9, release.full_flops),
    ):
        if abs(flops / published - 1) > FLOPS_TOLERANCE:
            found.append(f"{name}: {flops:.2f} G {kind} FLOPs, published {published:.2f} G")
    return found


# The document

DOCUMENT = """\
# The models

Written by `tools/analyze_model.py --write docs/MODELS.md`; `--table` prints the tables alone, and
`--model NAME --image-size HEIGHT WIDTH --window-size M` counts a model by stage at a size of your
own.

{tables}

Counted for one image of the given size, in multiply-adds, with fvcore on the forward of the model.
Parameters have a head of 1000 classes; the backbone is what a detector uses of them. "Published"
are mmpretrain's numbers (parameters, seed FLOPs, accuracy on ImageNet-1k) and what Microsoft's code
counts (full FLOPs; their README rounds them to 0.1 G). There are no published weights of the last
two models, and their numbers of heads are not in the paper.
All conventions leave out softmax, GELU and other work by element, and then differ:

| | seed FLOPs (mmpretrain) | full FLOPs (Microsoft) |
|---|---|---|
| convolution and linear layers | yes | yes |
| qkv and both products of attention | no | yes |
| MLP of the position bias | yes | no (in eval it runs once, and is kept) |
| LayerNorm, an element | 2 | 1 |
| pooling, an element | 1 | 0 |

Where the published numbers are not ours: two of the three large models are published with 0.01 M
parameters more than the third, of the same architecture; the full FLOPs of the models for 192 px
are published with a head of 21841 classes, which is up to 0.2 % more.
"""

COSTS = (
    "| variant | image | params M | published | backbone M | seed FLOPs G | published "
    "| full FLOPs G | published | top-1 / top-5 |\n|---|---|---|---|---|---|---|---|---|---|"
)
SHAPES = (
    "| variant | seed name | C | depths | heads | windows | normalisers of the bias |\n"
    "|---|---|---|---|---|---|---|"
)


def cost_row(name: str, parts: dict[str, Cost]) -> str:
    whole, release = total(parts), RELEASES.get(name)
    published, accuracy = ("-", "-", "-"), "-"
    if release:
        published = (release.parameters, release.seed_flops, release.full_flops)
        published = tuple(f"{number:.2f}" for number in published)
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
    """Both tables, from the rows of the first for all variants."""
    return "\n".join([COSTS, *cost_rows, "", SHAPES, *map(shape_row, VARIANTS)])


def stage_table(parts: dict[str, Cost]) -> str:
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


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def analyse_all() -> tuple[list[str], list[str]]:
    """The rows of the table of costs, and the deviations, of all variants."""
    rows, found = [], []
    for name in tqdm(VARIANTS, desc="counting", unit="model"):
        parts = analyse(name)
        rows.append(cost_row(name, parts))
        found += deviations(name, total(parts))
    return rows, found


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--table", action="store_true", help="all variants; fails on a deviation")
    task.add_argument("--write", type=Path, metavar="FILE", help="the document of all variants")
    task.add_argument("--model", metavar="NAME", help="one variant, by stage")
    memory = parser.add_argument_group("memory of training, with --model")
    memory.add_argument("--memory", action="store_true", help="instead of multiply-adds")
    memory.add_argument("--batch", type=int, default=1, help="images of one process")
    memory.add_argument("--processes", type=int, default=1, help="one for each GPU")
    memory.add_argument("--precision", choices=PRECISIONS, default="bfloat16", help="mixed")
    memory.add_argument("--checkpointing", action="store_true", help="of activations")
    memory.add_argument("--kernel", choices=("triton", "tiles", "reference"), default="triton")
    parser.add_argument(
        "--image-size", type=int, nargs="+", metavar="PIXELS", help="height and width, or one side"
    )
    parser.add_argument(
        "--window-size", type=int, nargs="+", metavar="M", help="in tokens; one, or one per stage"
    )
    args = parser.parse_args(argv)
    if not args.model and (args.image_size or args.window_size or args.memory):
        parser.error("--image-size, --window-size and --memory go with --model")
    if min(args.batch, args.processes) < 1:
        parser.error("--batch and --processes must be positive")
    return args


def print_model(args: argparse.Namespace) -> None:
    name, variant = args.model, VARIANTS[variant_name(args.model)]
    size = tuple(args.image_size or (variant.image_size,))
    if len(size) > 2:
        raise ValueError(f"--image-size is one number or two, got {len(size)}")
    height, width = size if len(size) == 2 else size * 2
    given = args.window_size
    windows = given[0] if given and len(given) == 1 else given
    shown = (
        f"{height} x {width} pixels, windows {', '.join(map(str, given or variant.window_sizes))}"
    )
    if not args.memory:
        parts = analyse(name, (height, width), windows)
        print(f"{name}: one image of {shown}\n\n{stage_table(parts)}")
        print("\nMaps are padded to whole windows, and these FLOPs have what that costs.")
        return
    setting = training_memory.Setting(
        name,
        (height, width),
        windows,
        args.batch,
        PRECISIONS[args.precision],
        args.checkpointing,
        args.kernel,
    )
    print(f"{name}: {args.batch} x {shown}, {args.processes} processes; GiB of each\n")
    print(training_memory.table_of(setting, args.processes))


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    try:
        if args.model:
            print_model(args)
            return
        rows, found = analyse_all()
        if args.table:
            print(tables(rows))
        elif not found:
            args.write.write_text(DOCUMENT.format(tables=tables(rows)))
    except (ValueError, OSError) as error:  # something the user can mend, so no traceback
        sys.exit(f"{type(error).__name__}: {error}")
    if found:
        sys.exit("not as published:\n" + "\n".join(found))


if __name__ == "__main__":
    main()
