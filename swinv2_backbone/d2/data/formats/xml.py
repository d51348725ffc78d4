"""XML files of annotation tools, parsed without entities."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat


def read_xml(path: Path) -> Element:
    """Parse an XML file and return its root.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not XML, or declares a document type. Such a declaration may define
            entities, which expand to any size or to other files; no annotation tool writes one.
    """

    def refuse(name: str, *_: object) -> None:
        raise ValueError(
            f"{path} declares a document type (<!DOCTYPE {name}>), which annotation files do not "
            "need and which is not read: remove the declaration"
        )

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(path.read_bytes(), True)
    except expat.ExpatError as error:
        raise ValueError(f"{path} is not XML: {error}") from error
    return builder.close()


def text_of(element: Element, path: str) -> str:
    """Return the text of a child; "" if there is none."""
    return (element.findtext(path) or "").strip()
