"""Splits that keep patients whole and every source and label in proportion; made once and stored in the manifest."""

from __future__ import annotations

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ..errors import DataError
from ..progress import Progress
from .datasets import SPLITS
from .manifest import image_path, read_rows, relative_cell, write_manifest

_TOLERANCE = 0.01
_MOST_PARTS = 20


def patient_groups(
    sources: Sequence[str], patients: Sequence[str], linked: Iterable[tuple[int, int]] = ()
) -> list[int]:
    """A number for each study, the same for studies that must stay together.

    Args:
        sources: Source of each study.
        patients: Patient of each study, unique within the source.
        linked: Positions of studies that belong together whoever the patient is, such as copies of one image.
    """
    parent = list(range(len(sources)))

    def root(position: int) -> int:
        while parent[position] != position:
            parent[position] = parent[parent[position]]
            position = parent[position]
        return position

    first: dict[tuple[str, str], int] = {}
    for position, patient in enumerate(zip(sources, patients, strict=True)):
        parent[root(position)] = root(first.setdefault(patient, position))
    for one, other in linked:
        parent[root(one)] = root(other)
    return [root(position) for position in range(len(sources))]


def make_folds(groups: Sequence[int], strata: Sequence[str], folds: int, seed: int) -> list[int]:
    """The fold that holds each study out, 0 to `folds` - 1; no group in two folds, strata in proportion.

    Raises:
        DataError: Fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    distinct = len(set(groups))
    if folds < 2 or distinct < folds:
        raise DataError(f"{folds} folds cannot be made from {distinct} patients. Use from 2 to {distinct} folds.")
    codes = np.unique(np.asarray(strata), return_inverse=True)[1]
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    result = np.full(len(groups), -1)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # the caller is shown the counts
        try:
            for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(groups)), codes, groups)):
                result[held_out] = fold
        except ValueError as error:
            raise DataError(f"{folds} folds cannot be made: every source and label has fewer studies.") from error
    return [int(fold) for fold in result]


def make_splits(groups: Sequence[int], strata: Sequence[str], fractions: Mapping[str, float], seed: int) -> list[str]:
    """The split of each study, no group in two splits, strata in proportion.

    Args:
        groups: From `patient_groups`.
        strata: Source and label of each study as one text.
        fractions: Share of the studies for each split; they add up to 1. Splits with share 0 stay empty.
        seed: Of the shuffling.

    Raises:
        DataError: Fractions that are no shares, or too few patients.
    """
    if any(not 0 <= share <= 1 for share in fractions.values()) or not math.isclose(sum(fractions.values()), 1):
        raise DataError(f"the fractions {list(fractions.values())} do not add up to 1.")
    wanted = [(name, share) for name, share in fractions.items() if share > 0]
    wanted.sort(key=lambda item: item[1])  # the rest, and not a small split, takes what does not divide evenly
    result = [wanted[-1][0]] * len(groups)
    left = list(range(len(groups)))
    remaining = 1.0
    for name, share in wanted[:-1]:
        parts, taken = _parts(share / remaining)
        strata_left = [strata[i] for i in left]
        folds = make_folds([groups[i] for i in left], strata_left, parts, seed)
        chosen = _most_typical(folds, strata_left, parts, taken)
        for i, fold in zip(left, folds, strict=True):
            if fold in chosen:
                result[i] = name
        left = [i for i, fold in zip(left, folds, strict=True) if fold not in chosen]
        remaining -= share
    return result


def split_manifest(
    path: Path,
    output: Path,
    *,
    folds: int | None = None,
    fractions: Mapping[str, float] | None = None,
    keep_test: bool = False,
    together: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, dict[str, int]]:
    """Read a manifest, split its studies anew, and write it with the splits; every other cell stays as it is.

    With `folds` the column `fold` is written; empty split cells become "train". With `fractions` the column `split` is
    written and a column `fold` emptied.

    Args:
        path: Manifest; its split cells may be empty.
        output: New manifest.
        folds: Number of cross-validation folds.
        fractions: Share of each split; of the studies outside test where `keep_test`.
        keep_test: Leave studies that are in test there, out of every fold.
        together: Read all images and keep copies, exact and near, in one split whoever the patient is.
        seed: Of the shuffling.
        progress: Hears how many images are read.

    Returns:
        Number of studies by "source label" and split or fold.

    Raises:
        DataError: A manifest that cannot be read or split.
    """
    if (folds is None) == (fractions is None):
        raise DataError("give either a number of folds or the fractions of the splits.")
    columns, rows = read_rows(path)
    for number, row in enumerate(rows, start=2):
        for column in ("source", "patient", "label"):
            if not row[column]:
                raise DataError(f"{path}, row {number}: {column} is empty.")
    linked = _copies(path, rows, progress) if together else []
    groups = patient_groups([row["source"] for row in rows], [row["patient"] for row in rows], linked)
    frozen = {group for group, row in zip(groups, rows, strict=True) if keep_test and row["split"] == "test"}
    free = [i for i, group in enumerate(groups) if group not in frozen]
    if not free:
        raise DataError(f"{path}: every patient is in test, so nothing is left to split.")
    some = [groups[i] for i in free]
    strata = [f"{rows[i]['source']} {rows[i]['label']}" for i in free]
    column = "split" if fractions is not None else "fold"
    chosen = make_splits(some, strata, fractions, seed) if fractions is not None else None
    numbers = make_folds(some, strata, folds, seed) if folds is not None else None
    for row in rows:
        if "fold" in row or folds is not None:
            row["fold"] = ""
        row["split"] = row["split"] or "train"
    for at, i in enumerate(free):
        if chosen is not None:
            rows[i]["split"] = chosen[at]
        if numbers is not None:
            rows[i]["fold"] = str(numbers[at])
    if output.parent.resolve() != path.parent.resolve():
        _rebase(path, output, rows)
    write_manifest(output, _columns(columns, with_fold=folds is not None), rows)
    return _count(rows, column)


def parse_fractions(text: str) -> dict[str, float]:
    """Shares by split from text such as ".7,.1,.2" (train, val, test).

    Raises:
        DataError: Not three numbers.
    """
    try:
        shares = [float(part) for part in text.split(",")]
    except ValueError:
        shares = []
    if len(shares) != len(SPLITS):
        raise DataError(f"{text!r} is not three fractions for {', '.join(SPLITS)}, such as .7,.1,.2.")
    return dict(zip(SPLITS, shares, strict=True))


def _parts(share: float) -> tuple[int, int]:
    """(n, k) with the smallest n for which k parts of n are the share."""
    candidates = [(n, max(1, round(share * n))) for n in range(2, _MOST_PARTS + 1)]
    fitting = [(n, k) for n, k in candidates if k < n and abs(k / n - share) < _TOLERANCE]
    return fitting[0] if fitting else (_MOST_PARTS, min(max(1, round(share * _MOST_PARTS)), _MOST_PARTS - 1))


def _most_typical(folds: Sequence[int], strata: Sequence[str], parts: int, taken: int) -> set[int]:
    """The run of `taken` folds in which every stratum is closest to its share; a small stratum misses some folds."""
    totals = Counter(strata)
    counts = Counter(zip(strata, folds, strict=True))

    def deviation(run: set[int]) -> float:
        return sum(abs(sum(counts[s, fold] for fold in run) / totals[s] - taken / parts) for s in totals)

    return min(({(start + step) % parts for step in range(taken)} for start in range(parts)), key=deviation)


def _copies(path: Path, rows: Sequence[Mapping[str, str]], progress: Progress | None) -> list[tuple[int, int]]:
    from .duplicates import Fingerprint, fingerprints, same_images

    prints = fingerprints([image_path(path, row["image"]) for row in rows], progress)
    read = []
    for number, print_ in enumerate(prints, start=2):
        if not isinstance(print_, Fingerprint):
            raise DataError(f"{path}, row {number}: {print_}")
        read.append(print_)
    return [(pair.first, pair.second) for pair in same_images(read)]


def _rebase(path: Path, output: Path, rows: Iterable[dict[str, str]]) -> None:
    for row in rows:
        row["image"] = relative_cell(image_path(path, row["image"]), output.parent)


def _columns(columns: Sequence[str], *, with_fold: bool) -> list[str]:
    if "fold" in columns or not with_fold:
        return list(columns)
    before = columns.index("split") + 1
    return [*columns[:before], "fold", *columns[before:]]


def _count(rows: Iterable[Mapping[str, str]], column: str) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        counts[f"{row['source']} {row['label']}"][row[column] or row["split"]] += 1
    return {key: dict(sorted(value.items())) for key, value in sorted(counts.items())}
