"""Annotations kept in columns of numbers: read in pieces, saved, and shared by processes."""

from swinv2_backbone.d2.data.storage.columns import Columns, columns_of
from swinv2_backbone.d2.data.storage.json_lists import JsonLists
from swinv2_backbone.d2.data.storage.records import Images, Records

__all__ = ["Columns", "Images", "JsonLists", "Records", "columns_of"]
