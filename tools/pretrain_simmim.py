#!/usr/bin/env python
"""Pre-train a SwinV2 on images without labels; see --help."""

from swinv2_backbone.cli.pretrain_simmim import main

if __name__ == "__main__":
    main()
