"""The log that training left beside its bundle: one line an epoch."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import DataError


@dataclass(frozen=True)
class LearningLog:
    """A training log.

    Attributes:
        epochs: Epoch of each line.
        columns: Values by name, NaN where a cell is empty.
    """

    epochs: Sequence[float]
    columns: Mapping[str, Sequence[float]]

    @property
    def groups(self) -> dict[str, list[str]]:
        """Columns that are drawn together."""
        kinds = {"training": "train_", "validation": "val_"}
        groups = {title: [name for name in self.columns if name.startswith(start)] for title, start in kinds.items()}
        groups["other"] = [name for name in self.columns if not name.startswith(tuple(kinds.values()))]
        return {title: names for title, names in groups.items() if names}


def read_log(path: Path) -> LearningLog:
    """Read a CSV with a column `epoch` and a column of numbers for everything that was logged.

    Raises:
        DataError: It is no such file.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
        columns = {name: [float(row[name] or math.nan) for row in rows] for name in rows[0]}
        return LearningLog(columns.pop("epoch"), columns)
    except (OSError, ValueError, TypeError, KeyError, IndexError, csv.Error) as error:
        raise DataError(f"{path}: no training log with a column epoch and numbers ({error!r}).") from error
