"""What a bundle tells of training studies: no patient, no exact age, and names only where a licence allows it."""

from __future__ import annotations

import csv
import dataclasses
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from MediScanLib.network.cases import OLDEST, format_cases, parse_cases
from MediScanLib.study.record import ClinicalRecord
from MediScanLib.training.adapters import nih
from MediScanLib.training.cases import NOT_STATED, case_rows, may_be_shown, rounded_age
from MediScanLib.training.datasets import Study, read_manifest


def study(**changes: object) -> Study:
    made = Study(
        image=Path("images/7f3a.jpg"),
        source="made",
        licence="CC BY 4.0",
        patient="secret-patient",
        split="train",
        label="pneumonia",
        modality="CR",
        body_part="CHEST",
        record=ClinicalRecord(age_years=63.4, sex="F", crp_mg_per_l=123.4),
        severity=0.5,
        row=2,
        view="PA",
        finding="secret finding",
    )
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize(
    "licence",
    [
        *("CC0", "cc0 1.0", "CC0-1.0", "public domain", "CC BY", "CC BY 4.0", "CC BY 3.0", "cc-by-4.0", "CC BY 2.5"),
        *("CC BY-SA", "CC BY-SA 4.0", "CC-BY-SA-4.0", "  CC  BY  4.0 ", "CC BY 4.0; CC0", nih.LICENCE),
    ],
)
def test_what_everybody_may_show(licence) -> None:
    assert may_be_shown(licence)
    assert case_rows([study(licence=licence)])[0].image == "7f3a"


@pytest.mark.parametrize(
    "licence",
    [
        *("", " ", ";", "not stated", "not stated per image", "not stated in the copy used", "CC BY-NC", "CC BY-ND"),
        *("CC BY-NC-SA", "CC BY-NC-SA 4.0", "CC BY-NC-ND 4.0", "CC-BY-NC-4.0", "CC BY 4.0; CC BY-NC 4.0", "CC BY;"),
        *("listed as authorized for everyone", "PhysioNet Credentialed Health Data License", "MIT", "not CC BY"),
        *("Stanford University Dataset Research Use Agreement", "as figure 1 states it", "CC BY 4.0 or not"),
        "terms of the challenge; images from NIH, unrestricted use with attribution",
    ],
)
def test_what_not_everybody_may_show(licence) -> None:
    assert not may_be_shown(licence)
    (case,) = case_rows([study(licence=licence)])
    assert case.image is None
    assert (case.label, case.view, case.age_years, case.sex) == ("pneumonia", "PA", 60, "F")


def test_a_row_tells_of_nobody() -> None:
    (case,) = case_rows([study()])
    assert dataclasses.asdict(case) == {
        **{"label": "pneumonia", "source": "made", "licence": "CC BY 4.0", "view": "PA"},
        **{"age_years": 60, "sex": "F", "image": "7f3a"},
    }
    assert b"secret" not in format_cases([case])
    assert b"63" not in format_cases([case])


def test_what_is_unknown_stays_unknown() -> None:
    (case,) = case_rows([study(licence="", view="", record=ClinicalRecord())])
    assert (case.licence, case.view, case.age_years, case.sex) == (NOT_STATED, None, None, None)


@pytest.mark.parametrize(
    ("years", "told"),
    [(0, 0), (4.9, 0), (5, 10), (14.99, 10), (25, 30), (65, 70), (84.9, 80), (85, OLDEST), (97, OLDEST), (120, 90)],
)
def test_ages_are_rounded_to_tens_and_the_oldest_are_together(years, told) -> None:
    assert rounded_age(years) == told


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("00011097_002.png", "00011097_002"),
        ("a.b.JPEG", "a.b"),
        ("1.2.840.10", "1.2.840.10"),
        ("scan.nii.gz", "scan.nii.gz"),
        ("a:b.png", None),
        ("two\nlines.png", None),
        ("x" * 300, None),
    ],
)
def test_a_name_is_the_one_of_the_data_set_or_none(name, told) -> None:
    assert case_rows([study(image=Path("/home/somebody") / name)])[0].image == told


@given(source=st.text(min_size=1), licence=st.text(), view=st.text(), name=st.text(min_size=1))
def test_whatever_a_manifest_says_can_be_read_back(source, licence, view, name) -> None:
    if not re.search(r"\w", source):
        source += "x"
    rows = case_rows([study(source=source, licence=licence, view=view, image=Path(name))])
    assert parse_cases(format_cases(rows), "cases.csv") == tuple(rows)


def test_the_rows_of_the_real_manifest(shared_data) -> None:
    studies = read_manifest(shared_data / "studies.csv")
    rows = case_rows(studies)
    assert parse_cases(format_cases(rows), "cases.csv") == tuple(rows)
    shown = {(row.source, row.licence) for row in rows if row.image is not None}
    assert {source for source, _ in shown} == {"nih", "hannover", "cohen"}
    assert not any(re.search(r"NC|ND|not stated", licence) for _, licence in shown)
    assert all(row.image is None for row in rows if row.source in ("bone_eeeh", "bone_roboflow", "busi", "iqothnccd"))
    with (shared_data / "studies.csv").open(encoding="utf-8", newline="") as stream:
        given = list(csv.DictReader(stream))
    assert [row.label for row in rows] == [line["label"] for line in given]
    # nih names its images by a number that it gave the patient: that name is public, and says nothing else
    other = [(row, line["patient"]) for row, line in zip(rows, given, strict=True) if row.source != "nih"]
    assert not any(row.image == patient for row, patient in other)
    assert {row.age_years for row in rows} <= {None, *range(0, 100, 10)}
