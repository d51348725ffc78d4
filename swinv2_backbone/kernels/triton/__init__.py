"""A whole block, or attention alone, on a GPU by Triton.

Nothing is imported here, as Triton is optional: see ``block.fused_block`` and
``attention.triton_window_attention``.
"""

__all__: list[str] = []
