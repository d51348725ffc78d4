#!/usr/bin/env python
"""Print versions, devices and kernels, for a bug report; see --help."""

from swinv2_backbone.cli.info import main

if __name__ == "__main__":
    main()
