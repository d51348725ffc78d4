#!/usr/bin/env python
"""Classify images, or measure accuracy; see --help."""

from swinv2_backbone.cli.classify import main

if __name__ == "__main__":
    main()
