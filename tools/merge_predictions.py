#!/usr/bin/env python
"""Merge predictions in shards into one COCO file; see --help."""

from swinv2_backbone.cli.merge_predictions import main

if __name__ == "__main__":
    main()
