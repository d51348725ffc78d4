"""Triton kernels for a GPU: a whole block, or attention alone.

Nothing is imported here, because Triton is optional: see ``block.fused_block`` and
``attention.triton_window_attention``.
"""

__all__: list[str] = []
