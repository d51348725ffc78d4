"""Where Triton's kernels run in tests: on a GPU, or in its interpreter, made exact and faster."""

from __future__ import annotations

from itertools import product

import pytest
import torch
import triton
from triton.runtime import interpreter
from triton.runtime.interpreter import InterpretedFunction, InterpreterBuilder

from swinv2_backbone.kernels import self_check
from swinv2_backbone.kernels.triton import attention, block

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@pytest.fixture(autouse=True, scope="module")
def bfloat16_as_on_a_gpu():
    """Multiply and round bfloat16 as a GPU: the interpreter keeps it as bits.

    It would multiply those, and round towards zero.
    """
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


@pytest.fixture(autouse=True, scope="module")
def interpreter_without_repetition():
    """Halve the interpreter's time.

    It replaces the functions of ``triton.language`` when a kernel is launched, and again in every
    call of a function inside, and makes a table of all dtypes whenever it looks one up.
    """
    call, replaced = InterpretedFunction.__call__, set()

    def call_inside(self, *arguments, **options):
        if self.fn in replaced:
            return self.rewrite()(*arguments, **options)
        replaced.add(self.fn)
        return call(self, *arguments, **options)

    look_up, known = interpreter._get_np_dtype, {}

    def numpy_dtype(dtype):
        scalar = dtype.scalar
        if scalar.name not in known:
            known[scalar.name] = look_up(scalar)
        return known[scalar.name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InterpretedFunction, "__call__", call_inside)
        patch.setattr(interpreter, "_get_np_dtype", numpy_dtype)
        yield


@pytest.fixture(autouse=True, scope="module")
def kernels_checked_before():
    """Leave out the check at the first use, which has tests of its own and takes long here."""
    keys = product((attention.CHECK, block.CHECK), [torch.device(DEVICE)], DTYPES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(self_check, "_checked", dict.fromkeys(keys, True))
        yield
