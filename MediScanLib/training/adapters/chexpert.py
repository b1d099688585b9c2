"""CheXpert (Irvin et al., AAAI 2019): train.csv and valid.csv with JPEG files, full size or "small"."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from ...errors import DataError
from .chexpert_labels import OBSERVATIONS, finding_text, manifest_label
from .entries import Choices, Imported, read_table

LICENCE = "Stanford University Dataset Research Use Agreement"
_COLUMNS = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA", *OBSERVATIONS)
_BATCHES = "CheXpert-v1.0 batch *"
_FILES = {"train.csv": "train", "valid.csv": "val"}
_PLACE = re.compile(r"(?:train|valid)/(?P<patient>patient\d+)/study(?P<study>\d+)/[^/]+$")
_SEX = {"Male": "M", "Female": "F"}


def read_chexpert(root: Path, choices: Choices) -> Imported:
    """Studies of CheXpert, one row an image; for labels see `chexpert_labels.manifest_label`.

    `root` holds train.csv and valid.csv, or the four folders of the full size as downloaded
    ("CheXpert-v1.0 batch 1 (validate & csv)" to "batch 4 (train 3)"). The paths in the tables start with the name
    that the folder had when it was distributed ("CheXpert-v1.0/..."), which is ignored.

    Split: valid.csv, read by radiologists, is val; there is no public test. Age 0 stands for unknown, because all
    patients are adults. View: AP, PA and so on, or LATERAL.

    Raises:
        DataError: A file of the set is missing or not as distributed.
    """
    result = Imported()
    batches = sorted(root.glob(_BATCHES))
    tables = next((batch for batch in batches if (batch / "train.csv").exists()), root)
    for file, split in _FILES.items():
        if split == "val" and not (tables / file).exists():
            continue
        for number, row in enumerate(read_table(tables / file, _COLUMNS), start=2):
            place = _PLACE.search(row["Path"])
            if place is None:
                raise DataError(f"{tables / file}, row {number}: {row['Path']!r} is not patient/study/view.")
            try:
                label, reason = manifest_label(row, choices)
                finding = finding_text(row)
            except DataError as error:
                raise DataError(f"{tables / file}, row {number}: {error}") from error
            if label is None:
                result.left_out[reason] += 1
                continue
            result.add(
                _image(root, batches, row["Path"]),
                label,
                source=choices.source or "chexpert",
                licence=LICENCE,
                patient=place["patient"],
                split=split,
                modality="CR",
                body_part="CHEST",
                view="LATERAL" if row["Frontal/Lateral"] == "Lateral" else row["AP/PA"],
                follow_up=int(place["study"]) - 1,
                finding=finding,
                age_years=row["Age"] if row["Age"] != "0" else "",
                sex=_SEX.get(row["Sex"], ""),
            )
    return result


def _image(root: Path, batches: Sequence[Path], path: str) -> Path:
    """Where the image lies; the batches of train hold the patients without a folder "train" above them."""
    below = PurePosixPath(path).parts[1:]
    places = [root.joinpath(*below)]
    for batch in batches:
        places += [batch.joinpath(*below), batch.joinpath(*below[1:])]
    return next((place for place in places if place.exists()), places[0])
