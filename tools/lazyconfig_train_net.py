#!/usr/bin/env python
"""Train or evaluate by a LazyConfig, under Detectron2's own name for this script; see --help."""

from swinv2_backbone.cli.train import main

if __name__ == "__main__":
    main()
