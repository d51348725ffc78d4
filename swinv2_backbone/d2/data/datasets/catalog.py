"""Names in Detectron2's catalogs, kept from being taken over from another dataset."""

from __future__ import annotations

from detectron2.data import DatasetCatalog, MetadataCatalog


def require_free(name: str, *source: str) -> None:
    """Raise ValueError if ``name`` belongs to a dataset from other files than ``source``."""
    if name in DatasetCatalog and MetadataCatalog.get(name).get("source") != source:
        raise ValueError(f"NAME {name!r} is the name of another dataset; choose a new one")


def claim(name: str, *source: str) -> None:
    """Reserve ``name`` for a dataset from the files ``source``; drop its earlier registration.

    Raises:
        ValueError: the name belongs to another dataset.
    """
    require_free(name, *source)
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    MetadataCatalog.get(name).source = source
