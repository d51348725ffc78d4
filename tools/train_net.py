#!/usr/bin/env python
"""Train or evaluate a model with a SwinV2 backbone; see --help."""

from swinv2_backbone.cli.train import main

if __name__ == "__main__":
    main()
