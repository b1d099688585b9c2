"""NIH ChestX-ray14 (Wang et al., CVPR 2017): Data_Entry_2017*.csv, BBox_List_2017.csv, official lists, PNG files."""

from __future__ import annotations

import csv
from pathlib import Path

from ...errors import DataError
from ..manifest import Box
from .entries import Choices, Imported, read_lines, read_table

LICENCE = "NIH: unrestricted use with attribution"
_COLUMNS = ("Image Index", "Finding Labels", "Follow-up #", "Patient ID", "Patient Age", "View Position")
_LISTS = {"train_val_list.txt": "train", "test_list.txt": "test"}
_SIDE = 1024.0  # boxes are in pixels of the distributed images, which are all 1024 x 1024


def read_nih(root: Path, choices: Choices) -> Imported:
    """Studies of ChestX-ray14.

    Labels: "No Finding" is normal; any list with "Pneumonia" is pneumonia, whatever else stands in it; all other
    studies fall under `Choices.others`. The labels are mined from reports and noisy. There is no uncertain label.

    Split: train_val_list.txt is train, test_list.txt is test; the split stays empty for images in neither list or
    where the lists are missing. Carve val out of train with `mediscan data split --keep-test`.

    Raises:
        DataError: A file of the set is missing or not as distributed.
    """
    tables = sorted(root.glob("Data_Entry_2017*.csv"))
    if len(tables) != 1:
        found = ", ".join(table.name for table in tables) or "none"
        raise DataError(f"{root}: expected one Data_Entry_2017*.csv, found {found}.")
    images = {path.name: path for path in root.rglob("*.png")}
    splits = {
        name.strip(): split
        for file, split in _LISTS.items()
        if (root / file).exists()
        for name in read_lines(root / file)
    }
    result = Imported()
    for row in read_table(tables[0], _COLUMNS):
        findings = row["Finding Labels"].split("|")
        if "Pneumonia" in findings:
            label = "pneumonia"
        elif findings == ["No Finding"]:
            label = "normal"
        elif choices.others == "negative":
            label = "no_pneumonia"
        else:
            result.left_out["findings that are none of ours"] += 1
            continue
        name = row["Image Index"]
        result.add(
            images.get(name, root / "images" / name),
            label,
            source=choices.source or "nih",
            licence=LICENCE,
            patient=row["Patient ID"].lstrip("0") or "0",
            split=splits.get(name, ""),
            modality="CR",
            body_part="CHEST",
            view=row["View Position"],
            follow_up=row["Follow-up #"].lstrip("0") or "0",
            finding=row["Finding Labels"],
            age_years=row["Patient Age"],
            sex=row.get("Patient Gender") or row.get("Patient Sex"),
            original_width=row.get("OriginalImage[Width"),
            original_height=row.get("Height]"),
            pixel_spacing_mm=row.get("OriginalImagePixelSpacing[x"),
        )
    kept = {Path(row["image"]).name for row in result.rows}
    result.boxes = [box for box in _boxes(root, images) if box.image.name in kept]
    return result


def _boxes(root: Path, images: dict[str, Path]) -> list[Box]:
    """Boxes by position in the row: the header "Image Index,Finding Label,Bbox [x,y,w,h],,," splits into odd names."""
    path = root / "BBox_List_2017.csv"
    if not path.exists():
        return []
    boxes = []
    for number, row in enumerate(list(csv.reader(read_lines(path)))[1:], start=2):
        try:
            x, y, width, height = (float(cell) / _SIDE for cell in row[2:6])
        except ValueError as error:
            raise DataError(f"{path}, row {number}: expected four numbers for the box ({error}).") from error
        if row[0] in images:
            boxes.append(Box(images[row[0]], row[1].lower(), "NIH", x, y, width, height))
    return boxes
