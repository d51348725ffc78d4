"""Large pictures, divided into overlapping tiles whose predictions are joined."""

from swinv2_backbone.d2.inference.tiling.geometry import Tile, Tiling
from swinv2_backbone.d2.inference.tiling.predict import predict_tiled, require_joinable

__all__ = ["Tile", "Tiling", "predict_tiled", "require_joinable"]
