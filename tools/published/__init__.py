"""Published numbers beside those of our recipes; see docs/PUBLISHED.md."""
