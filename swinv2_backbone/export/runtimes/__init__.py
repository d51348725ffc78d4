"""Checking exported files in other runtimes."""

from swinv2_backbone.export.runtimes.check import Report, check_in
from swinv2_backbone.export.runtimes.runtimes import RUNTIMES, check_runtime

__all__ = ["RUNTIMES", "Report", "check_in", "check_runtime"]
