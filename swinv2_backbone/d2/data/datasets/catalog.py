"""Names in Detectron2's catalogs: free, ours of the same source, or another dataset's."""

from __future__ import annotations

from detectron2.data import DatasetCatalog, MetadataCatalog


def require_free(name: str, *source: str) -> None:
    """Raise ValueError if ``name`` is that of a dataset of another source than these files."""
    if name in DatasetCatalog and MetadataCatalog.get(name).get("source") != source:
        raise ValueError(f"NAME {name!r} is the name of another dataset; choose a new one")


def claim(name: str, *source: str) -> None:
    """Make ``name`` free for a dataset of this source, whose earlier registration is dropped.

    Raises:
        ValueError: it is the name of another dataset.
    """
    require_free(name, *source)
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    MetadataCatalog.get(name).source = source
