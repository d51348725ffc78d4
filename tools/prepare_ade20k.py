#!/usr/bin/env python
"""Prepare ADE20K's labels for Detectron2; see --help."""

from swinv2_backbone.cli.prepare_ade20k import main

if __name__ == "__main__":
    main()
