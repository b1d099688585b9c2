"""RSNA Pneumonia Detection Challenge 2018 (Shih et al., Radiology: AI 2019), stage 2, as DICOM files."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from ...errors import DataError, ReadError
from ..manifest import Box
from .entries import Choices, Imported, read_table
from .headers import header_facts

LICENCE = "terms of the challenge; images from NIH, unrestricted use with attribution"
_CLASSES = {"Normal": "normal", "Lung Opacity": "pneumonia", "No Lung Opacity / Not Normal": None}
_MAPPING = "pneumonia-challenge-dataset-mappings*.json"


def read_rsna(root: Path, choices: Choices) -> Imported:
    """Studies of the training set of stage 2; the test set has no labels.

    Labels: Lung Opacity, which the readers marked where they suspected pneumonia, is pneumonia; Normal is normal;
    "No Lung Opacity / Not Normal" falls under `Choices.others`. Age, sex and view come from the DICOM headers.

    The set has no official split, so the split stays empty. `patientId` is one image; that several images are of one
    patient is known only from the RSNA's mapping file to the NIH images: where it lies in `root` the NIH patient is
    used, otherwise images of one patient may later fall into different splits, which a note says.

    Raises:
        DataError: A file of the set is missing or not as distributed.
    """
    boxes: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    labels = root / "stage_2_train_labels.csv"
    for number, row in enumerate(read_table(labels, ("patientId", "x", "y", "width", "height", "Target")), start=2):
        if row["Target"] == "1":
            try:
                boxes[row["patientId"]].append(tuple(float(row[side]) for side in ("x", "y", "width", "height")))
            except ValueError as error:
                raise DataError(f"{labels}, row {number}: expected four numbers for the box ({error}).") from error
    classes = {
        row["patientId"]: row["class"]
        for row in read_table(root / "stage_2_detailed_class_info.csv", ("patientId", "class"))
    }
    patients = _patients(root)
    result = Imported()
    if not patients:
        result.notes[f"{_MAPPING} is not there, so every image counts as a patient of its own"] += 1
    for identifier, name in classes.items():
        if name not in _CLASSES:
            raise DataError(f"{root}: {identifier} has the unknown class {name!r}.")
        label = _CLASSES[name] or ("no_pneumonia" if choices.others == "negative" else None)
        if label is None:
            result.left_out["findings that are none of ours"] += 1
            continue
        image = root / "stage_2_train_images" / f"{identifier}.dcm"
        try:
            facts = header_facts(image) if image.exists() else None
        except ReadError:
            facts = None
            result.notes["the image is damaged; `mediscan data check` says which and how"] += 1
        result.add(
            image,
            label,
            source=choices.source or "rsna",
            licence=LICENCE,
            patient=patients.get(identifier, identifier),
            split="",
            modality=facts.modality if facts else "",
            body_part=(facts.body_part if facts else "") or "CHEST",
            view=facts.view if facts else "",
            finding=name,
            original_width=f"{facts.columns:g}" if facts and facts.columns else "",
            original_height=f"{facts.rows:g}" if facts and facts.rows else "",
            **(facts.clinical if facts else {}),
        )
        if facts and facts.rows and facts.columns:
            for x, y, width, height in boxes.get(identifier, []):
                x, width, y, height = x / facts.columns, width / facts.columns, y / facts.rows, height / facts.rows
                result.boxes.append(Box(image, "lung opacity", "RSNA", x, y, width, height))
    return result


def _patients(root: Path) -> dict[str, str]:
    """NIH patient number by patientId, from "img_id" such as "00000013_003.png"."""
    for path in sorted(root.glob(_MAPPING)):
        try:
            items = json.loads(path.read_text(encoding="utf-8"))
            return {item["subset_img_id"]: item["img_id"].split("_")[0].lstrip("0") or "0" for item in items}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path}: is not the mapping of the challenge ({error!r}).") from error
    return {}
