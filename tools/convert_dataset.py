#!/usr/bin/env python
"""Convert annotations of other tools to COCO's format; see --help."""

from swinv2_backbone.cli.convert_dataset import main

if __name__ == "__main__":
    main()
