"""MURA 1.1 (Rajpurkar et al., MIDL 2018): radiographs of the upper extremity, normal or abnormal by study."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from ...errors import DataError
from .entries import Choices, Imported, read_lines, read_table

LICENCE = "Stanford University Dataset Research Use Agreement"
_SPLITS = {"train": "train", "valid": "val"}
_PLACE = re.compile(
    r"(?:train|valid)/XR_(?P<part>[A-Z]+)/(?P<patient>patient\d+)/study(?P<study>\d+)_(?:positive|negative)/[^/]+$"
)


def read_mura(root: Path, choices: Choices) -> Imported:
    """Studies of MURA, one row an image.

    Labels: 0 is normal. 1 means abnormal, which is a fracture, but also hardware, degenerative joint disease, a
    lesion or a subluxation; the set does not say which. So it becomes `abnormal`, which says only that the study is
    not normal, and never fracture.

    `root` holds train_image_paths.csv, train_labeled_studies.csv and the same for valid, all without a header; the
    paths in them start with "MURA-v1.1", which is ignored. Split: valid is val; the test set is not public.

    Raises:
        DataError: A file of the set is missing or not as distributed.
    """
    result = Imported()
    for name, split in _SPLITS.items():
        images, studies = root / f"{name}_image_paths.csv", root / f"{name}_labeled_studies.csv"
        if split == "val" and not images.exists():
            continue
        labels = {row["study"].rstrip("/"): row["label"] for row in read_table(studies, header=("study", "label"))}
        for number, line in enumerate(read_lines(images), start=1):
            path = PurePosixPath(line.strip().rstrip(","))
            place = _PLACE.search(path.as_posix())
            label = labels.get(path.parent.as_posix())
            if place is None or label not in ("0", "1"):
                raise DataError(f"{images}, row {number}: no study of {studies.name} with label 0 or 1 holds {path}.")
            result.add(
                root.joinpath(*path.parts[1:]),
                "normal" if label == "0" else "abnormal",
                source=choices.source or "mura",
                licence=LICENCE,
                patient=place["patient"],
                split=split,
                modality="CR",
                body_part=place["part"],
                follow_up=int(place["study"]) - 1,
                finding="normal" if label == "0" else "abnormal",
            )
    return result
