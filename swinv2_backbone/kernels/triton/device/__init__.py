"""Triton functions: they run on the device, on values that have no types of Python.

Nothing is imported here, as Triton is optional.
"""

__all__: list[str] = []
