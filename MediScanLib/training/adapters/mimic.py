"""MIMIC-CXR-JPG 2.x (Johnson et al., 2019): three tables, gzipped or not, and files/pNN/pNNNNNNNN/sNNNNNNNN/*.jpg."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from ...errors import DataError
from .chexpert_labels import OBSERVATIONS, finding_text, manifest_label
from .entries import Choices, Imported, read_table

LICENCE = "PhysioNet Credentialed Health Data License"
_PREFIX = "mimic-cxr-2.0.0-"  # of version 2.1.0 as well
_SPLITS = {"train": "train", "validate": "val", "test": "test"}


def read_mimic(root: Path, choices: Choices) -> Imported:
    """Studies of MIMIC-CXR-JPG, one row an image; for labels see `chexpert_labels.manifest_label`.

    Labels belong to the report, so all images of a study share them; studies without a row in the label table are
    left out. Age and sex are not in the set. `follow_up` counts the earlier study dates of the patient, which are
    shifted but keep their order.

    Raises:
        DataError: A file of the set is missing or not as distributed.
    """
    labels = {
        (row["subject_id"], row["study_id"]): row
        for row in read_table(root / f"{_PREFIX}chexpert.csv.gz", ("subject_id", "study_id", *OBSERVATIONS))
    }
    splits = {
        row["dicom_id"]: row["split"]
        for row in read_table(root / f"{_PREFIX}split.csv.gz", ("dicom_id", "study_id", "subject_id", "split"))
    }
    columns = ("dicom_id", "subject_id", "study_id", "ViewPosition", "StudyDate", "StudyTime", "Rows", "Columns")
    images = list(read_table(root / f"{_PREFIX}metadata.csv.gz", columns))
    order: dict[str, dict[str, tuple[str, str]]] = defaultdict(dict)
    for row in images:
        order[row["subject_id"]][row["study_id"]] = (row["StudyDate"], _time(row["StudyTime"]))
    result = Imported()
    for row in images:
        patient, study, dicom = row["subject_id"], row["study_id"], row["dicom_id"]
        observed = labels.get((patient, study))
        if observed is None:
            result.left_out["no labels for the study"] += 1
            continue
        split = splits.get(dicom, "")
        if split and split not in _SPLITS:
            raise DataError(f"{root / f'{_PREFIX}split.csv.gz'}: {dicom} has the unknown split {split!r}.")
        try:
            label, reason = manifest_label(observed, choices)
            finding = finding_text(observed)
        except DataError as error:
            raise DataError(f"{root / f'{_PREFIX}chexpert.csv.gz'}, study {study}: {error}") from error
        if label is None:
            result.left_out[reason] += 1
            continue
        times = order[patient]
        result.add(
            root / "files" / f"p{patient[:2]}" / f"p{patient}" / f"s{study}" / f"{dicom}.jpg",
            label,
            source=choices.source or "mimic",
            licence=LICENCE,
            patient=patient,
            split=_SPLITS.get(split, ""),
            modality="CR",
            body_part="CHEST",
            view=row["ViewPosition"],
            follow_up=sum(time < times[study] for time in times.values()),
            finding=finding,
            original_width=row["Columns"],
            original_height=row["Rows"],
        )
    return result


def _time(text: str) -> str:
    """HHMMSS of a time such as "81556.875", whose leading zero is lost in the table."""
    return text.partition(".")[0].zfill(6)
