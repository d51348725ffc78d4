#!/usr/bin/env python
"""Convert SwinV2 weights between layouts; see --help."""

from swinv2_backbone.cli.convert_checkpoint import main

if __name__ == "__main__":
    main()
