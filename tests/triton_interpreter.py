"""Where Triton's kernels run in tests: on a GPU, or in its interpreter, made to be exact."""

from __future__ import annotations

import pytest
import torch
import triton
from triton.runtime.interpreter import InterpreterBuilder

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True, scope="module")
def bfloat16_as_on_a_gpu():
    """The interpreter keeps bfloat16 as bits: it multiplies those, and it rounds towards zero."""
    float32, bfloat16 = triton.language.float32, triton.language.bfloat16
    create_dot, cast = InterpreterBuilder.create_dot, InterpreterBuilder.cast_impl

    def dot_of_numbers(self, a, b, *others):
        if a.dtype == bfloat16:
            a, b = cast(self, a, float32), cast(self, b, float32)
        return create_dot(self, a, b, *others)

    def cast_to_nearest(self, source, dtype):
        result = cast(self, source, dtype)
        if (source.dtype.scalar, dtype.scalar) == (float32, bfloat16):
            nearest = torch.tensor(source.data).bfloat16().view(torch.uint16)
            result.data = nearest.numpy()
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpreterBuilder, "create_dot", dot_of_numbers)
        patch.setattr(InterpreterBuilder, "cast_impl", cast_to_nearest)
        yield
