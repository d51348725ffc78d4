"""Trained models applied to images: predictions of one image or many files, and their drawings."""

from swinv2_backbone.d2.inference.prediction import Classes, Prediction
from swinv2_backbone.d2.inference.predictor import Predictor, load_predictor, predictor_of

__all__ = ["Classes", "Prediction", "Predictor", "load_predictor", "predictor_of"]
