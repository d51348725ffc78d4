"""Data for training and testing: ``loading`` batches, registering ``datasets``, ``validation``."""

__all__ = ["datasets", "loading", "validation"]  # packages; import names from them
