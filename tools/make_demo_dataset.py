#!/usr/bin/env python
"""Write the generated demo dataset; see --help."""

from swinv2_backbone.cli.make_demo_dataset import main

if __name__ == "__main__":
    main()
