"""Checkpoints: every published layout in, any layout out; see docs/CHECKPOINTS.md."""

from swinv2_backbone.checkpoints.load import load_checkpoint
from swinv2_backbone.checkpoints.report import LoadReport
from swinv2_backbone.checkpoints.save import save_checkpoint

__all__ = ["LoadReport", "load_checkpoint", "save_checkpoint"]
