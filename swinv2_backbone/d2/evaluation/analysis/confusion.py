"""Confusion tables: rows are ground truth classes, columns are predicted classes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from swinv2_backbone.d2.evaluation.analysis.matching import Matches

BACKGROUND, MISSED = "background", "missed"
MOST_SHOWN = 30  # classes in a table or picture; more are not legible


@dataclass(frozen=True)
class Confusion:
    """A table of counts with the names of rows and columns.

    Attributes:
        counts: (rows, columns) integers; entry (i, i) is class i predicted as itself.
        rows, columns: the classes; for detection, the last row is "background" and the last column
            "missed".
        totals: (rows,) counts of the whole row, including columns that are not shown.
        hidden: number of classes that are not shown.
    """

    counts: np.ndarray
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    totals: np.ndarray
    hidden: int = 0

    @property
    def shares(self) -> np.ndarray:
        """Return the counts as shares of their rows; 0 in empty rows."""
        return self.counts / np.maximum(self.totals, 1)[:, None]

    @property
    def classes(self) -> int:
        """Return the number of classes in the table; they are its first rows and columns."""
        return sum(row == column for row, column in zip(self.rows, self.columns))

    def most_confused(self, limit: int = MOST_SHOWN) -> Confusion:
        """Return the table of the ``limit`` classes with the highest counts off the diagonal."""
        if self.classes <= limit:
            return self
        wrong = self.counts - np.diag(np.diag(self.counts))
        errors = (wrong.sum(axis=0) + wrong.sum(axis=1))[: self.classes]
        most = np.sort(np.argsort(-errors, kind="stable")[:limit]).tolist()
        kept = [*most, *range(self.classes, len(self.rows))]
        return Confusion(
            self.counts[np.ix_(kept, kept)],
            tuple(self.rows[place] for place in kept),
            tuple(self.columns[place] for place in kept),
            self.totals[kept],
            self.classes - limit,
        )


def object_confusion(
    matches: Iterable[Matches], classes: list[str], index: dict[int, int]
) -> Confusion:
    """Count the objects of matched images; ``index`` is category id -> index in ``classes``."""
    outside = len(classes)
    counts = np.zeros((outside + 1, outside + 1), np.int64)
    for one in matches:
        for truth, found in one.pairs:
            counts[index[truth["category_id"]], index[found["category_id"]]] += 1
        for truth in one.missed:
            counts[index[truth["category_id"]], outside] += 1
        for found in one.false:
            counts[outside, index[found["category_id"]]] += 1
    rows, columns = (*classes, BACKGROUND), (*classes, MISSED)
    return Confusion(counts, rows, columns, counts.sum(axis=1))
