"""``python -m swinv2_backbone``: the command ``swinv2``."""

from swinv2_backbone.cli.main import main

if __name__ == "__main__":
    main()
