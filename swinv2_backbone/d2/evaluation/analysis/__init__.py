"""Analysis of a finished run: tables and pictures from its files, without running the model."""

from swinv2_backbone.d2.evaluation.analysis.report import Report, Settings
from swinv2_backbone.d2.evaluation.analysis.run import Run, open_run

__all__ = ["Report", "Run", "Settings", "open_run"]
