#!/usr/bin/env python
"""Analyze the results of a finished run; see --help."""

from swinv2_backbone.cli.analyze_results import main

if __name__ == "__main__":
    main()
