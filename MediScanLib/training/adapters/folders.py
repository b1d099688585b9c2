"""A plain folder for each class, with or without a folder for each split above it."""

from __future__ import annotations

import re
from pathlib import Path

from ...errors import DataError, ReadError
from ...study.finding import find_images
from ..datasets import EXCLUDES, LABELS
from .entries import Choices, Imported
from .headers import header_facts

_SPLITS = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def read_folders(root: Path, choices: Choices) -> Imported:
    """Images of `root`/CLASS or `root`/SPLIT/CLASS; subfolders of a class belong to it.

    Labels: the name of the class folder, upper or lower case, where it is one of our labels; `Choices.labels` names
    the label of any other. Patients: the first group of
    `Choices.patient_pattern` in the file name; else the hashed identifier of a DICOM header; else every image counts
    as a patient of its own, which a note says. Age, sex, modality, body part and view come from DICOM headers.

    Raises:
        DataError: No class folders, or a class without a label.
    """
    result = Imported()
    classes = [(split, folder) for split, parent in _parents(root) for folder in _folders(parent)]
    if not classes:
        raise DataError(f"{root}: holds no class folders.")
    for split, folder in classes:
        label = _label(folder, choices)
        for image in find_images(folder):
            try:
                facts = header_facts(image)
            except ReadError:
                facts = None
                result.notes["the image is damaged; `mediscan data check` says which and how"] += 1
            matched = re.search(choices.patient_pattern, image.name) if choices.patient_pattern else None
            patient = (matched[1] if matched else None) or (facts.patient if facts else "")
            if not patient:
                result.notes["no patient is known, so that the image counts as a patient of its own"] += 1
                patient = f"{folder.name}/{image.relative_to(folder).as_posix()}"
            result.add(
                image,
                label,
                source=choices.source or root.resolve().name,
                patient=patient,
                split=split,
                modality=facts.modality if facts else "",
                body_part=facts.body_part if facts else "",
                view=facts.view if facts else "",
                finding=folder.name,
                **(facts.clinical if facts else {}),
            )
    return result


def _parents(root: Path) -> list[tuple[str, Path]]:
    folders = _folders(root)
    if folders and all(folder.name.lower() in _SPLITS for folder in folders):
        return [(_SPLITS[folder.name.lower()], folder) for folder in folders]
    return [("", root)]


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        raise DataError(f"{parent}: no such folder.")
    return sorted(entry for entry in parent.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _label(folder: Path, choices: Choices) -> str:
    name = folder.name
    if name in choices.labels:
        return choices.labels[name]
    if name.lower() in (*LABELS, *EXCLUDES):
        return name.lower()
    raise DataError(
        f"{folder}: no label is known for the class {name!r}. Say which it is, such as {name}=normal; the labels are "
        f"{', '.join((*LABELS, *EXCLUDES))}."
    )
