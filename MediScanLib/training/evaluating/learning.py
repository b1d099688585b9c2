"""The log that training left beside its bundle: one line an epoch."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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


def mean_log(logs: Sequence[LearningLog]) -> LearningLog:
    """The mean of several runs, at each epoch over those that came so far; columns that all of them have."""
    longest = max(logs, key=lambda log: len(log.epochs))
    names = [name for name in longest.columns if all(name in log.columns for log in logs)]
    columns = {
        name: [
            float(np.mean([log.columns[name][i] for log in logs if i < len(log.epochs)]))
            for i in range(len(longest.epochs))
        ]
        for name in names
    }
    return LearningLog(longest.epochs, columns)


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
