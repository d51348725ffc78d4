#!/usr/bin/env python
"""Count parameters, multiply-adds and training memory; see --help."""

from swinv2_backbone.cli.analyze_model import main

if __name__ == "__main__":
    main()
