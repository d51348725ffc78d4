#!/usr/bin/env python
"""Make a dataset, train a model on it, evaluate and draw; see --help."""

from swinv2_backbone.cli.demo import main

if __name__ == "__main__":
    main()
