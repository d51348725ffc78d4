#!/usr/bin/env python
"""Draw a model's predictions on images and videos; see --help."""

from swinv2_backbone.cli.predict import main

if __name__ == "__main__":
    main()
