#!/usr/bin/env python
"""Suggest a recipe and settings for a dataset; see --help."""

from swinv2_backbone.cli.suggest import main

if __name__ == "__main__":
    main()
