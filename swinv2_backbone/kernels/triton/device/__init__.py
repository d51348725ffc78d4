"""Triton functions that run on the device.

Nothing is imported here, because Triton is optional.
"""

__all__: list[str] = []
