#!/usr/bin/env python
"""Train or evaluate by a LazyConfig, under Detectron2's own name for this script; see --help."""

from swinv2_backbone.cli.train_net import run

if __name__ == "__main__":
    run()
