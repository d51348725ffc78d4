"""The layouts of weight files, one module per publisher: tables of names and pure functions."""

from swinv2_backbone.checkpoints.layouts.layout import Layout

__all__ = ["Layout"]
