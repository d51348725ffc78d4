#!/usr/bin/env python
"""Export a model to a file that runs without this package; see --help."""

from swinv2_backbone.cli.export_model import main

if __name__ == "__main__":
    main()
