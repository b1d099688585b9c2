from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from MediScanLib.errors import ClinicalError
from MediScanLib.study.record import FIELDS, ClinicalRecord, refused_prefill
from MediScanLib.study.record_files import read_records, write_records

NUMBERS = [info for info in FIELDS.values() if not info.choices]


def known_values() -> st.SearchStrategy[dict]:
    return st.fixed_dictionaries(
        {},
        optional={
            name: st.sampled_from(info.choices)
            if info.choices
            else st.floats(info.minimum, info.maximum, allow_nan=False, width=32)
            for name, info in FIELDS.items()
        },
    )


@given(known_values())
def test_json_round_trip_keeps_every_value_and_every_gap(values):
    record = ClinicalRecord(**values)
    again = ClinicalRecord.model_validate_json(record.model_dump_json())
    assert again == record
    assert again.known == values
    assert set(again.missing) == set(FIELDS) - set(values)


@given(known_values())
def test_encoding_masks_exactly_the_unknown(values):
    encoded, known = ClinicalRecord(**values).encode()
    assert encoded.shape == known.shape == (10,)
    assert {name for name, flag in zip(FIELDS, known, strict=True) if flag} == set(values)
    assert np.all(encoded[~known] == 0)
    if "sex" in values:
        assert encoded[1] == (1.0 if values["sex"] == "M" else 0.0)


@pytest.mark.parametrize("info", NUMBERS, ids=lambda info: info.name)
@pytest.mark.parametrize("beyond", [-1, 1])
def test_out_of_range_names_field_value_unit_and_range(info, beyond):
    value = info.minimum - 1 if beyond < 0 else info.maximum + 1
    with pytest.raises(ClinicalError) as caught:
        ClinicalRecord(**{info.name: value})
    for part in (info.name, f"{value:g}", info.unit, f"{info.minimum:g}", f"{info.maximum:g}"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("temperature_c", "38,4 C", 38.4),
        ("temperature_c", "38.4°C", 38.4),
        ("temperature_c", "101.3 F", 38.5),
        ("temperature_c", " 38,45 ", 38.45),
        ("crp_mg_per_l", "2.3 mg/dL", 23.0),
        ("crp_mg_per_l", "23 mg/l", 23.0),
        ("leukocytes_1e9_per_l", "11200 /µL", 11.2),
        ("leukocytes_1e9_per_l", "11.2 ×10⁹/L", 11.2),
        ("leukocytes_1e9_per_l", "11.2 10^3/ul", 11.2),
        ("heart_rate_per_min", "88 bpm", 88.0),
        ("spo2_percent", "97 %", 97.0),
        ("age_years", "063Y", 63.0),
        ("age_years", "18 months", 1.5),
        ("sex", "female", "F"),
        ("sex", " m ", "M"),
    ],
)
def test_decimal_commas_and_units_are_understood(field, text, expected):
    value = getattr(ClinicalRecord(**{field: text}), field)
    assert value == (pytest.approx(expected) if isinstance(expected, float) else expected)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("temperature_c", "38.4 mg/l", "unit"),
        ("temperature_c", "high", "not a number"),
        ("temperature_c", "1.038,4", "unit"),
        ("leukocytes_1e9_per_l", "11,200", "may mean"),
        ("crp_mg_per_l", "<5", "limit"),
        ("spo2_percent", 0.97, "give 97"),
        ("sex", "O", "F or M"),
        ("sex", 1, "F or M"),
        ("age_years", True, "not a number"),
        ("age_years", [63], "not a number"),
        ("age_years", float("inf"), "outside"),
        ("age_years", 10**400, "outside"),
        ("age_years", "63M", "unit"),  # a man of 63 or 63 months
    ],
)
def test_what_is_not_understood_is_refused_clearly(field, value, says):
    with pytest.raises(ClinicalError) as caught:
        ClinicalRecord(**{field: value})
    assert field in str(caught.value)
    assert says in str(caught.value)


@pytest.mark.parametrize("number", [np.int64(63), np.float32(63), np.float64(63)])
def test_numbers_of_numpy_are_numbers(number):
    assert ClinicalRecord(age_years=number).age_years == 63


@pytest.mark.parametrize("word", ["", "unknown", "N/A", "nan", None, float("nan"), np.float32("nan"), "?"])
def test_unknown_is_unknown_and_not_zero(word):
    assert ClinicalRecord(temperature_c=word).missing == list(FIELDS)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("age", "age_years"),
        ("wbc", "leukocytes_1e9_per_l"),
        ("crp_mg_l", "crp_mg_per_l"),
        ("Temperature", "temperature_c"),
        ("spo2", "spo2_percent"),
    ],
)
def test_unknown_field_suggests_the_nearest(name, meant):
    with pytest.raises(ClinicalError, match=f"Did you mean '{meant}'"):
        ClinicalRecord(**{name: 1})


def test_every_field_has_unit_range_and_loinc():
    assert len(FIELDS) == 10
    for info in FIELDS.values():
        assert info.unit or info.choices
        assert info.minimum < info.maximum
        number, check = info.loinc.split("-")
        assert number.isdigit()
        assert check.isdigit()
        assert _mod10(number) == int(check), f"{info.name}: LOINC check digit"


def _mod10(number: str) -> int:
    """LOINC check digit (Luhn, mod 10)."""
    digits = [int(d) for d in reversed(number)]
    total = sum(sum(divmod(2 * d, 10)) if i % 2 == 0 else d for i, d in enumerate(digits))
    return (10 - total % 10) % 10


def test_prefill_fills_only_gaps_and_marks_them():
    record = ClinicalRecord(age_years=40).with_prefill({"age_years": 63.0, "sex": "F"})
    assert record.known == {"age_years": 40, "sex": "F"}
    assert record.prefilled == ("sex",)
    assert ClinicalRecord.model_validate_json(record.model_dump_json()) == record


def test_implausible_header_values_are_left_out_and_named():
    header = {"age_years": 999.0, "sex": "F"}
    assert ClinicalRecord().with_prefill(header).known == {"sex": "F"}
    (sentence,) = refused_prefill(header)
    assert "age_years" in sentence
    assert "999" in sentence


def test_marking_an_unknown_value_as_prefilled_is_an_error():
    with pytest.raises(ClinicalError, match="prefilled"):
        ClinicalRecord(prefilled=("sex",))


@pytest.mark.parametrize("ending", ["csv", "json"])
def test_files_round_trip(tmp_path, ending):
    records = {"a.png": ClinicalRecord(age_years=63, sex="M"), "ü b.dcm": ClinicalRecord(crp_mg_per_l=3.5)}
    path = tmp_path / f"clinical.{ending}"
    write_records(records, path)
    read = read_records(str(path))
    assert read.by_input == records
    assert read.of("folder/ü b.dcm") == records["ü b.dcm"]
    assert read.of("other.png") == ClinicalRecord()


def test_json_text_is_for_every_input():
    assert read_records('{"age_years": 63}').of("anything").age_years == 63


def test_semicolon_csv_with_decimal_commas(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("input;temperature_c\na.png;38,4\n", encoding="utf-8")
    assert read_records(str(path)).of("a.png").temperature_c == pytest.approx(38.4)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("c.csv", "input,age\na.png,3\n", "Did you mean 'age_years'"),
        ("c.csv", "input,age_years\na.png,300\n", "row 2"),
        ("c.csv", "age_years\n3\n4\n", "no column 'input'"),
        ("c.csv", "input,age_years\na.png,3\na.png,4\n", "twice"),
        ("c.csv", "input,age_years\na.png,3,4\n", "cells"),
        ("c.csv", "", "no rows"),
        ("c.json", "{", "not valid JSON"),
        ("c.json", '{"sex": "F", "sex": "M"}', "twice"),
        ("c.json", "3", "expected an object"),
        ("c.json", '[{"age_years": 3}]', "item 1"),
        ("c.json", "[" * 100000, "not valid JSON"),
        ("c.txt", "x", "neither .json nor .csv"),
    ],
)
def test_bad_files_say_what_is_wrong_and_where(tmp_path, name, content, says):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ClinicalError) as caught:
        read_records(str(path))
    assert says in str(caught.value)


def test_missing_and_binary_files_are_named(tmp_path):
    with pytest.raises(ClinicalError, match="no such file"):
        read_records(str(tmp_path / "none.json"))
    path = tmp_path / "c.csv"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ClinicalError, match="UTF-8"):
        read_records(str(path))


@pytest.mark.shared_data
def test_every_clinical_value_of_the_real_studies_is_accepted(shared_data):
    with (shared_data / "studies.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    records = [ClinicalRecord(**{name: row.get(name) for name in FIELDS}) for row in rows]
    assert sum(len(record.known) for record in records) > 3000
    json.dumps([record.known for record in records])


@pytest.mark.parametrize("name", ["scan.png", "./scan.png", None])
def test_records_are_found_by_any_spelling_of_the_path(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    key = name or str(tmp_path / "scan.png")
    (tmp_path / "c.csv").write_text(f"input,age_years\n{key},63\n", encoding="utf-8")
    assert read_records("c.csv").of("scan.png").age_years == 63


def test_message_names_the_line_even_after_empty_ones(tmp_path):
    (tmp_path / "c.csv").write_text("input,age_years\n\n\na.png,300\n", encoding="utf-8")
    with pytest.raises(ClinicalError, match="row 4"):
        read_records(str(tmp_path / "c.csv"))


@pytest.mark.parametrize("text", ["", "  "])
def test_nothing_is_no_record(text):
    with pytest.raises(ClinicalError, match="empty"):
        read_records(text)
