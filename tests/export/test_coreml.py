"""CoreML packages: the operators with which they are checked, and the written package."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from swinv2_backbone.export.check import random_pixels
from swinv2_backbone.export.file import export_file
from swinv2_backbone.export.formats import FORMATS, Options
from swinv2_backbone.export.formats.coreml_operators import OPERATORS, evaluate

X = torch.arange(24.0).view(1, 2, 3, 4)
WEIGHT = torch.linspace(-1, 1, 54).view(3, 2, 3, 3)


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("pad", {"pad": [0, 0, 0, 0, 1, 2, 3, 4], "mode": "constant", "constant_val": 5.0},
         F.pad(X, (3, 4, 1, 2), value=5)),
        ("conv", {"weight": WEIGHT, "pad_type": "custom", "pad": [1, 0, 2, 1], "strides": [2, 1],
                  "dilations": [1, 1], "groups": 1},
         F.conv2d(F.pad(X, (2, 1, 1, 0)), WEIGHT, stride=(2, 1))),
        ("slice_by_index", {"begin": [0, 1, 0, 1], "end": [1, 2, 0, 4],
                            "stride": [1, 1, 2, 2], "end_mask": [False, False, True, False],
                            "squeeze_mask": [True, False, False, False]},
         X[0, 1:2, ::2, 1:4:2]),
        ("gather", {"indices": torch.tensor([2, 0]), "axis": np.int32(2)}, X[:, :, [2, 0]]),
        ("reduce_sum", {"axes": np.array([2, -1]), "keep_dims": np.bool_(True)},
         X.sum((2, 3), keepdim=True)),
        ("layer_norm", {"axes": [-1], "epsilon": 1e-3}, F.layer_norm(X, (4,), eps=1e-3)),
        ("matmul", {"y": X, "transpose_y": np.bool_(True)}, X @ X.mT),
        ("upsample_nearest_neighbor", {"scale_factor_height": 2.0, "scale_factor_width": 1.5},
         F.interpolate(X, (6, 6), mode="nearest")),
        ("expand_dims", {"axes": [0, 2]}, X[None, :, None]),
    ],
)  # fmt: skip
def test_an_operator_computes_what_coreml_describes(name, given, expected):
    assert torch.equal(OPERATORS[name]({"x": X} | given), expected)


def test_a_program_is_evaluated_in_order():
    """(x + 1) * 2, with a constant and an operator that is not known."""

    def variable(name: str, value: object = None) -> SimpleNamespace:
        return SimpleNamespace(name=name, val=value)

    x, one, two = variable("x"), variable("one", np.float32(1)), variable("two", np.float32(2))
    added, out = variable("added"), variable("out")
    operations = [
        SimpleNamespace(op_type="const", inputs={}, outputs=[one]),
        SimpleNamespace(op_type="add", inputs={"x": x, "y": one}, outputs=[added]),
        SimpleNamespace(op_type="mul", inputs={"x": added, "y": two}, outputs=[out]),
    ]
    function = SimpleNamespace(operations=operations, outputs=[out])
    assert evaluate(function, {"x": torch.tensor([3.0])})["out"].item() == 8
    operations[2].op_type = "erf_of_tomorrow"
    with pytest.raises(NotImplementedError, match="erf_of_tomorrow of CoreML"):
        evaluate(function, {"x": torch.tensor([3.0])})


class Means(nn.Module):
    """Pixels -> means of each channel, times numbers that float16 would round by 3e-4."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[1.0003, 0.7, -0.3], [0.2, 3.1415, 1e-7]]))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"second": images + 1, "first": (images / 255).mean((2, 3)) @ self.weight.T}


@pytest.mark.parametrize(
    ("name", "module"), [("coreml", "coremltools"), ("litert", "litert_torch")]
)
def test_a_file_of_one_shape_equals_the_model(name, module, tmp_path):
    pytest.importorskip(module)
    model, images, notes = Means().eval(), random_pixels((2, 3, 5, 7)), {"what": "a 'té<st>"}
    path = tmp_path / f"model{FORMATS[name].suffix}"
    for _ in range(2):  # the second replaces the first
        seen: list = []
        export_file(
            model, model, path, FORMATS[name], [images, images],
            notes=notes, options=Options(fixed=True), show=seen.append,
        )  # fmt: skip
        assert {one.output for one in seen} == {"first", "second"}
        assert all(one.absolute < 1e-6 for one in seen)
    assert list(tmp_path.iterdir()) == [path]
    run, found = FORMATS[name].read(path)
    assert notes.items() <= found.items()
    with pytest.raises(ValueError, match=r"of shape \(2, 3, 5, 7\), not \(1, 3, 5, 7\)"):
        run(random_pixels((1, 3, 5, 7)))
