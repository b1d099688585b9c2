"""From what people type on the page to a record, and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from MediScanLib.errors import ClinicalError
from MediScanLib.study.fields import FIELDS
from MediScanLib.study.record import ClinicalRecord
from MediScanLib.web.form import field_rows, problem_of, record_of, stated_values, texts_of


def test_the_form_has_every_field_with_unit_and_range():
    rows = {row["name"]: row for row in field_rows()}
    assert list(rows) == list(FIELDS)
    assert rows["temperature_c"]["range"] == "25 to 45 °C"
    assert rows["sex"]["choices"] == ["F", "M"]


@given(st.sampled_from([info for info in FIELDS.values() if not info.choices]), st.floats(0, 1))
def test_what_is_shown_of_a_value_is_read_as_that_value(info, part):
    value = float(f"{info.minimum + part * (info.maximum - info.minimum):g}")
    if not info.minimum <= value <= info.maximum:
        return
    texts = texts_of({info.name: value})
    assert problem_of(info.name, texts[info.name]) == ""
    assert getattr(record_of(texts, {}), info.name) == pytest.approx(value)


@given(st.sampled_from(list(FIELDS)), st.text(max_size=60))
def test_a_text_is_a_value_or_has_a_problem(name, text):
    problem = problem_of(name, text)
    assert isinstance(problem, str)
    if problem:
        assert not problem.startswith(name)
    else:
        record_of({name: text}, {})


def test_a_problem_tells_the_range():
    assert "25 to 45 °C" in problem_of("temperature_c", "384")
    with pytest.raises(ClinicalError):
        record_of({"temperature_c": "384"}, {})


def test_unknown_is_unknown_also_where_the_header_knows():
    stated = {"age_years": 63.0, "sex": "F"}
    record = record_of(texts_of({"sex": "F"}), stated)
    assert record == ClinicalRecord(sex="F", prefilled=("sex",))
    assert record_of(texts_of({"sex": "M", "age_years": 63.0}), stated).prefilled == ("age_years",)


def test_what_no_patient_can_have_is_not_taken_from_a_header():
    assert stated_values({"age_years": 320.0, "sex": "F", "nothing": 1.0}) == {"sex": "F"}
