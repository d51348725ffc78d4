#!/usr/bin/env python
"""Write docs/OPTIONS.md from the declarations of the options."""

from pathlib import Path

from swinv2_backbone.d2.config.tables import options_page

if __name__ == "__main__":
    page = Path(__file__).resolve().parent.parent / "docs" / "OPTIONS.md"
    page.write_text(options_page(), encoding="utf-8")
