"""Checkpoints: reading and writing weights in every published layout."""

from swinv2_backbone.checkpoints.hub import push_to_hub
from swinv2_backbone.checkpoints.load import load_checkpoint
from swinv2_backbone.checkpoints.read import Checkpoint, read_checkpoint
from swinv2_backbone.checkpoints.report import LoadReport
from swinv2_backbone.checkpoints.save import save_checkpoint
from swinv2_backbone.checkpoints.save_pretrained import save_pretrained

__all__ = [
    "Checkpoint",
    "LoadReport",
    "load_checkpoint",
    "push_to_hub",
    "read_checkpoint",
    "save_checkpoint",
    "save_pretrained",
]
