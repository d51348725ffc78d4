"""Sphinx's settings for the site: `make docs` builds it into site/, and a warning is an error."""

from __future__ import annotations

from swinv2_backbone import __version__

project = "swinv2_backbone"
author = "The swinv2_backbone authors"
copyright = f"{author}, Apache-2.0"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "contents"  # index.md is the first page, and plain Markdown
default_role = "code"  # of a `name` in a docstring
myst_heading_anchors = 3  # as GitHub makes them
suppress_warnings = ["myst.header"]  # the benchmark's tables start at the third level

# The API: docstrings in Google's style, in the order of the code, types in the signatures.
napoleon_numpy_docstring = False
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "exclude-members": "extra_repr, train, training"}
autodoc_inherit_docstrings = False  # Detectron2's are not written for Sphinx
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"swinv2_backbone {version}"
html_copy_source = False
html_show_sphinx = False
