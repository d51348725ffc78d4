"""Sphinx's settings for the site: `make docs` builds it into site/, and a warning is an error."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform

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


class IndexOfKeys(SphinxTransform):
    """Make the keys in the tables of options entries of the index, which the search reads.

    The search splits MODEL.WEIGHTS into two words that are on many pages; an entry of the index is
    found as it is, before the pages (as it is a main entry), and leads to its row.
    """

    default_priority = 500  # before Sphinx collects the index

    def apply(self, **_: Any) -> None:
        if not self.env.docname.startswith("OPTIONS"):
            return
        for row in self.document.findall(nodes.row):
            for cell in row.children[:2]:
                for literal in list(cell.findall(nodes.literal)):
                    self._index(literal)

    def _index(self, literal: nodes.literal) -> None:
        key = literal.astext()
        if not re.fullmatch(r"[\w{}]+(\.\w+|\[\w+\])+", key):
            return
        name = nodes.make_id(f"key-{key}")
        literal["ids"].append(name)
        entry = addnodes.index(entries=[("single", key, name, "main", None)])
        literal.parent.insert(literal.parent.index(literal), entry)


def setup(app: Sphinx) -> None:
    app.add_transform(IndexOfKeys)
