"""Clinical values out of FHIR Bundles, checked against the models of fhir.resources."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from MediScanLib.errors import ClinicalError
from MediScanLib.study.fhir import MOST_ENTRIES, record_of_bundle
from MediScanLib.study.fields import FIELDS
from MediScanLib.study.record_files import read_records

UNITS = {
    "age_years": ("a", 63, 63),
    "temperature_c": ("[degF]", 101.3, 38.5),
    "heart_rate_per_min": ("{beats}/min", 92, 92),
    "respiratory_rate_per_min": ("/min", 22, 22),
    "spo2_percent": ("%", 94, 94),
    "leukocytes_1e9_per_l": ("10*3/uL", 12.5, 12.5),
    "neutrophils_1e9_per_l": ("/uL", 9100, 9.1),
    "lymphocytes_1e9_per_l": ("10*6/L", 800, 0.8),
    "crp_mg_per_l": ("mg/dL", 12, 120),
}


def observation(field: str, value: float, unit: str, when: str | None = "2024-05-06T07:08:09+02:00", **rest) -> dict:
    made = {
        "resourceType": "Observation",
        "status": "final",
        "code": {"coding": [{"system": "http://loinc.org", "code": FIELDS[field].loinc}]},
        "subject": {"reference": "Patient/p1"},
        "valueQuantity": {"value": value, "unit": unit, "system": "http://unitsofmeasure.org", "code": unit},
    }
    if when:
        made["effectiveDateTime"] = when
    return {**made, **rest}


def patient(**rest) -> dict:
    return {"resourceType": "Patient", "id": "p1", "gender": "female", "birthDate": "1960-05-06", **rest}


def bundle(*resources: dict, **rest) -> dict:
    return {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in resources], **rest}


def full_bundle() -> dict:
    values = [observation(field, value, unit) for field, (unit, value, _) in UNITS.items() if field != "age_years"]
    return bundle(patient(), *values)


@pytest.mark.parametrize("version", ["fhir.resources.R4B.bundle", "fhir.resources.bundle"])
def test_the_bundles_of_these_tests_are_valid(version):
    models = pytest.importorskip(version, reason="fhir.resources is not installed")
    models.Bundle.model_validate(full_bundle())


def test_every_field_with_its_unit():
    found = record_of_bundle(full_bundle(), "b")
    for field, (_, _, expected) in UNITS.items():
        if field != "age_years":
            assert getattr(found.record, field) == pytest.approx(expected), field
    assert found.record.sex == "F"
    assert found.record.age_years == pytest.approx(64.0, abs=0.01)
    assert found.warnings == ()


def test_stated_age_and_birth_sex_count_first():
    sex = {"url": "http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex", "valueCode": "M"}
    found = record_of_bundle(bundle(patient(extension=[sex]), observation("age_years", 30, "mo")), "b")
    assert found.record.age_years == pytest.approx(2.5)
    assert found.record.sex == "M"


def test_coded_sex_observation():
    one = observation("sex", 0, "1")
    del one["valueQuantity"]
    one["valueCodeableConcept"] = {"coding": [{"system": "http://snomed.info/sct", "code": "248153007"}]}
    assert record_of_bundle(bundle(one), "b").record.sex == "M"


@pytest.mark.parametrize("order", [1, -1])
def test_latest_value_counts_whatever_the_order(order):
    values = [
        observation("crp_mg_per_l", 10, "mg/L", "2024-05"),
        observation("crp_mg_per_l", 20, "mg/L", "2024-05-06T23:30:00-05:00"),  # the 7th in UTC
        observation("crp_mg_per_l", 30, "mg/L", "2024-05-07T01:00:00Z"),
        observation("crp_mg_per_l", 99, "mg/L", None),
    ][::order]
    found = record_of_bundle(bundle(*values), "b")
    assert found.record.crp_mg_per_l == 20
    assert found.warnings == ("crp_mg_per_l: there are 4 values; that of 2024-05-06 is used.",)


@pytest.mark.parametrize("status", ["entered-in-error", "cancelled", "registered", "unknown", None])
def test_values_that_do_not_count(status):
    found = record_of_bundle(
        bundle(observation("crp_mg_per_l", 300, "mg/L", status=status), observation("spo2_percent", 97, "%")), "b"
    )
    assert found.record.known == {"spo2_percent": 97}
    assert "left out, its status" in found.warnings[0]


def test_panel_with_components():
    one = observation("heart_rate_per_min", 80, "/min")
    parts = [observation("spo2_percent", 97, "%"), observation("respiratory_rate_per_min", 18, "/min")]
    one["component"] = [{key: part[key] for key in ("code", "valueQuantity")} for part in parts]
    one["code"] = {"coding": [{"system": "http://loinc.org", "code": "85353-1"}]}
    del one["valueQuantity"]
    assert record_of_bundle(bundle(one), "b").record.known == {"spo2_percent": 97, "respiratory_rate_per_min": 18}


def test_age_needs_a_date():
    found = record_of_bundle(bundle(patient(), observation("spo2_percent", 97, "%", None)), "b")
    assert found.record.age_years is None
    assert "gives no age" in found.warnings[0]
    dated = bundle(patient(), observation("spo2_percent", 97, "%", None), timestamp="2024-05-06T00:00:00Z")
    assert record_of_bundle(dated, "b").record.age_years == pytest.approx(64, abs=0.01)


@pytest.mark.parametrize(
    ("quantity", "says"),
    [
        ({"value": 5, "comparator": "<", "unit": "mg/L"}, "is a limit"),
        ({"value": 5}, "has no unit"),
        ({"value": "5", "unit": "mg/L"}, "not a number"),
        ({"value": True, "unit": "mg/L"}, "not a number"),
        ({"value": float("nan"), "unit": "mg/L"}, "not a number"),
        ({"value": 10**400, "unit": "mg/L"}, "not a number"),
    ],
)
def test_values_left_out_are_told(quantity, says):
    one = observation("crp_mg_per_l", 1, "mg/L", valueQuantity=quantity)
    found = record_of_bundle(bundle(one, observation("spo2_percent", 97, "%")), "b")
    assert found.record.crp_mg_per_l is None
    assert says in found.warnings[0]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (bundle(observation("crp_mg_per_l", 5, "nmol/L")), "Observation 1: crp_mg_per_l: the unit"),
        (bundle(observation("spo2_percent", 0.97, "%")), "20 to 100 %"),
        (bundle(patient(), patient(id="p2")), "2 patients"),
        (
            bundle(patient(), observation("spo2_percent", 97, "%", subject={"reference": "Patient/other"})),
            "several patients",
        ),
        (
            bundle(
                observation("spo2_percent", 97, "%"),
                observation("spo2_percent", 97, "%", subject={"reference": "Patient/other"}),
            ),
            "several patients",
        ),
        (observation("spo2_percent", 97, "%"), "is a FHIR Observation"),
        (bundle(), "holds none of"),
        ({"resourceType": "Bundle", "entry": {"a": 1}}, "is not a list"),
        ({"resourceType": "Bundle", "entry": [{}] * (MOST_ENTRIES + 1)}, "more than"),
    ],
)
def test_refused(content, says):
    with pytest.raises(ClinicalError, match=says):
        record_of_bundle(content, "b")


def test_clinical_option_knows_it_by_its_type(tmp_path):
    (tmp_path / "b.json").write_text(json.dumps(full_bundle()))
    records = read_records(str(tmp_path / "b.json"))
    assert records.of("any.dcm").crp_mg_per_l == 120
    with pytest.raises(ClinicalError, match="not valid JSON"):
        read_records('{"resourceType": "Bundle", "entry": ' + "[" * 100_000)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=12), below, max_size=4),
    max_leaves=12,
)
KEYS = ("status", "code", "subject", "effectiveDateTime", "effectivePeriod", "issued", "valueQuantity", "component")


@given(
    st.dictionaries(st.sampled_from(KEYS), json_values),
    st.dictionaries(st.sampled_from(["gender", "birthDate", "extension", "id"]), json_values),
)
def test_damaged_resources_are_refused_or_read_but_never_crash(damage, of_patient):
    content = bundle({**patient(), **of_patient}, {**observation("spo2_percent", 97, "%"), **damage})
    try:
        record = record_of_bundle(content, "b").record
    except ClinicalError:
        return
    assert set(record.known) <= set(FIELDS)


@given(st.text("0123456789-T:.Z+", min_size=4, max_size=30))
def test_odd_times(text):
    found = record_of_bundle(bundle(patient(birthDate=None), observation("spo2_percent", 97, "%", text)), "b")
    assert found.record.spo2_percent == 97
