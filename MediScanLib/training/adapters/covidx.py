"""COVIDx CXR, versions 3 to 9 and CXR-2 to CXR-4 (Wang et al., Scientific Reports 2020): train, val and test lists."""

from __future__ import annotations

from pathlib import Path

from ...errors import DataError
from .entries import Choices, Imported, read_lines

_SPLITS = ("train", "val", "test")
_CLASSES = {
    "normal": "normal",
    "pneumonia": "pneumonia",
    "COVID-19": "covid",
    "positive": "covid",
    "negative": "normal|pneumonia",
}


def read_covidx(root: Path, choices: Choices) -> Imported:
    """Studies of COVIDx from lines "patient file class origin", such as "3 SARS-Fig8a.jpeg pneumonia cohen".

    Labels: the lists of versions A tell normal, pneumonia and COVID-19 apart. Those of versions B say "positive" and
    "negative"; negative covers normal chests and other pneumonias and becomes "normal|pneumonia", either of which may
    be right.

    COVIDx is put together from other sets, and the class follows the set nearly everywhere, so that telling the
    classes apart is mostly telling the sets apart. Each origin therefore becomes a source of its own
    ("covidx_cohen"), within which figures can be honest. The cohen and rsna parts are also in those sets:
    `mediscan data check` finds the copies where both are joined.

    Lists: train*.txt, val*.txt and test*.txt in `root` or in `root`/labels, one of each at most; images lie in
    `root`/SPLIT, in `root`/data/SPLIT or in `root`.

    Raises:
        DataError: No list, several lists of a split, or a line of another form.
    """
    result = Imported()
    lists = {split: _list(root, split) for split in _SPLITS}
    if not any(lists.values()):
        raise DataError(f"{root}: no train*.txt, val*.txt or test*.txt is there or in {root / 'labels'}.")
    for split, path in lists.items():
        for number, line in enumerate(read_lines(path) if path else [], start=1):
            parts = line.split()
            if len(parts) != 4 or parts[2] not in _CLASSES:
                raise DataError(f"{path}, line {number}: {line!r} is not 'patient file class origin'.")
            patient, name, label, origin = parts
            places = [root / split / name, root / "data" / split / name, root / name]
            result.add(
                next((place for place in places if place.exists()), places[0]),
                _CLASSES[label],
                source=f"{choices.source or 'covidx'}_{origin}",
                licence=f"as {origin} states it",
                patient=patient,
                split=split,
                modality="CR",
                body_part="CHEST",
                finding=label,
            )
    return result


def _list(root: Path, split: str) -> Path | None:
    found = sorted({*root.glob(f"{split}*.txt"), *(root / "labels").glob(f"{split}*.txt")})
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise DataError(f"{root}: several lists for {split} ({names}). Leave only the version that you have there.")
    return found[0] if found else None
