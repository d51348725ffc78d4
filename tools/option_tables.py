#!/usr/bin/env python
"""Write the pages of options in docs/ from the declarations of the options."""

from pathlib import Path

from swinv2_backbone.checkpoints.durable import write_text
from swinv2_backbone.d2.config.tables import options_pages

if __name__ == "__main__":
    docs = Path(__file__).resolve().parent.parent / "docs"
    for name, text in options_pages().items():
        write_text(docs / name, text)
