"""Clinical values out of a FHIR Bundle: a Patient and Observations, JSON, R4 (4.0.1), R4B or R5.

Of what is read here the three versions have the same elements: Patient.gender, Patient.birthDate, and of an
Observation status, code, subject, effective[x], issued, valueQuantity, valueCodeableConcept and component. LOINC tells
what an Observation is, UCUM in which unit.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timezone
from typing import Any

from ..errors import ClinicalError
from .fields import FIELDS
from .record import ClinicalRecord
from .values import parse_field

LOINC = "http://loinc.org"
UCUM = "http://unitsofmeasure.org"
BIRTH_SEX = "http://hl7.org/fhir/us/core/StructureDefinition/us-core-birthsex"
MOST_ENTRIES = 20_000

_STATED = frozenset({"final", "amended", "corrected", "preliminary"})
"""Statuses with a value that counts; not registered, cancelled, entered-in-error, unknown."""

_ALSO = {
    "2708-6": "spo2_percent",  # oxygen saturation in arterial blood
    "6690-2": "leukocytes_1e9_per_l",  # by automated count
    "751-8": "neutrophils_1e9_per_l",  # by automated count
    "731-0": "lymphocytes_1e9_per_l",  # by automated count
    "30522-7": "crp_mg_per_l",  # by high sensitivity method
    "8331-1": "temperature_c",  # oral
}
"""LOINC codes that say the same as those of `FIELDS` and how it was measured."""

_FIELD_OF = {**{info.loinc: name for name, info in FIELDS.items()}, **_ALSO}
_UNITS = {"[degF]": "degF", "10*6/L": "/uL", "wk": "weeks"}
"""UCUM codes under the names that `parse_field` knows."""

_DATE = re.compile(r"(\d{4})(?:-(\d{2})(?:-(\d{2})(T.*)?)?)?")
_EPOCH = datetime.min.replace(tzinfo=timezone.utc)


@dataclass(frozen=True)
class FhirRecord:
    """What a Bundle says of one patient.

    Attributes:
        record: The clinical values.
        warnings: Sentences on choices that were made and on what was left out.
    """

    record: ClinicalRecord
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Value:
    """One value of a field with its time; `when` is the start of time where none is stated."""

    value: float | str
    when: datetime
    where: str


def is_fhir(data: object) -> bool:
    """True for a FHIR resource of any kind, by its resourceType."""
    return isinstance(data, Mapping) and isinstance(data.get("resourceType"), str)


def record_of_bundle(bundle: Mapping[str, Any], name: str) -> FhirRecord:
    """The clinical values of the one patient of a Bundle; of several values of a field the latest counts.

    The age is that on the day of the latest value that is used, or the Bundle's, as FHIR states a birth date.

    Args:
        bundle: Parsed JSON.
        name: Stands in errors.

    Raises:
        ClinicalError: It is no Bundle, is of several patients, or holds a value that is not acceptable.
    """
    if bundle.get("resourceType") != "Bundle":
        raise ClinicalError(
            f"{name}: is a FHIR {str(bundle.get('resourceType'))[:40]}. Give a Bundle of a Patient and Observations."
        )
    resources = list(_resources(bundle, name))
    patients = [(url, one) for url, one in resources if one.get("resourceType") == "Patient"]
    if len(patients) > 1:
        raise ClinicalError(f"{name}: holds {len(patients)} patients. Give a Bundle of one.")
    observations = [one for _, one in resources if one.get("resourceType") == "Observation"]
    _check_subjects(observations, patients, name)
    notes: list[str] = []
    found: dict[str, list[_Value]] = {}
    for number, observation in enumerate(observations, start=1):
        for field, value in _values(observation, f"{name}, Observation {number}", notes):
            found.setdefault(field, []).append(value)
    chosen = {field: _latest(field, values, notes) for field, values in found.items()}
    fields: dict[str, float | str] = {field: one.value for field, one in chosen.items()}
    if patients:
        moments = [one.when for one in chosen.values() if one.when > _EPOCH]
        day = max(moments) if moments else _moment(bundle.get("timestamp"))
        _add_patient(fields, patients[0][1], None if day == _EPOCH else day.date(), notes)
    if not fields:
        raise ClinicalError(f"{name}: holds none of {', '.join(FIELDS)} under a LOINC code. Give a Bundle with some.")
    try:
        return FhirRecord(ClinicalRecord(**fields), tuple(notes))
    except ClinicalError as error:
        raise ClinicalError(f"{name}: {error}") from error


def _resources(bundle: Mapping[str, Any], name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    entries = bundle.get("entry", [])
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise ClinicalError(f"{name}: its entry is not a list of objects, as a FHIR Bundle has it.")
    if len(entries) > MOST_ENTRIES:
        raise ClinicalError(
            f"{name}: holds {len(entries)} resources, more than {MOST_ENTRIES}. Give a smaller Bundle."
        )
    for entry in entries:
        resource = entry.get("resource")
        if isinstance(resource, Mapping):
            yield str(entry.get("fullUrl", "")), resource


def _check_subjects(
    observations: list[Mapping[str, Any]], patients: list[tuple[str, Mapping[str, Any]]], name: str
) -> None:
    """Values of one patient must not be read as those of another."""
    subjects = {
        str(subject["reference"])
        for one in observations
        if isinstance(subject := one.get("subject"), Mapping) and subject.get("reference")
    }
    if patients:
        url, patient = patients[0]
        own = f"Patient/{patient.get('id', '')}"
        others = [one for one in subjects if one not in (url, own) and not one.endswith("/" + own)]
    else:
        others = sorted(subjects)[1:]
    if others:
        raise ClinicalError(f"{name}: holds Observations of several patients. Give a Bundle of one.")


def _values(resource: Mapping[str, Any], where: str, notes: list[str]) -> Iterator[tuple[str, _Value]]:
    """The values of an Observation and of its components, such as those of a panel of vital signs."""
    parts = [resource, *_objects(resource.get("component"))]
    fields = [_field(part) for part in parts]
    if not any(fields):
        return
    status = str(resource.get("status"))
    if status not in _STATED:
        notes.append(f"{where}: left out, its status is {status[:20]}.")
        return
    if status == "preliminary":
        notes.append(f"{where}: its status is preliminary.")
    when = _effective(resource)
    for field, part in zip(fields, parts, strict=True):
        if field is None:
            continue
        value = _value(field, part, where, notes)
        if value is not None:
            yield field, _Value(value, when, where)


def _field(part: Mapping[str, Any]) -> str | None:
    for code in _codings(part.get("code")):
        if code.get("system") == LOINC and str(code.get("code")) in _FIELD_OF:
            return _FIELD_OF[str(code["code"])]
    return None


def _value(field: str, part: Mapping[str, Any], where: str, notes: list[str]) -> float | str | None:
    if FIELDS[field].choices:
        return _coded_value(field, part, where, notes)
    quantity = part.get("valueQuantity")
    if not isinstance(quantity, Mapping):
        if "component" not in part:
            notes.append(f"{where}: left out, it has no {field} as valueQuantity.")
        return None
    number, comparator = quantity.get("value"), quantity.get("comparator")
    if not _is_number(number):
        notes.append(f"{where}: left out, the value of {field} is not a number.")
        return None
    if comparator:
        notes.append(f"{where}: left out, {field} is a limit ({str(comparator)[:2]}) and not a value.")
        return None
    unit = quantity.get("code") if quantity.get("system") == UCUM else None
    unit = _UNITS.get(str(unit), unit) or quantity.get("unit")
    if not isinstance(unit, str) or not unit.strip():
        notes.append(f"{where}: left out, {field} has no unit.")
        return None
    unit = re.sub(r"\{[^}]*\}", "", unit).strip()  # UCUM annotations, such as {beats}/min
    try:
        return parse_field(field, f"{number!r} {unit}")
    except ClinicalError as error:
        raise ClinicalError(f"{where}: {error}") from error


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _coded_value(field: str, part: Mapping[str, Any], where: str, notes: list[str]) -> str | None:
    concept = part.get("valueCodeableConcept")
    words = [str(code.get(key, "")) for code in _codings(concept) for key in ("code", "display")]
    if isinstance(concept, Mapping):
        words.append(str(concept.get("text", "")))
    known = {"248152002": "F", "248153007": "M", "LA3-6": "F", "LA2-8": "M"}  # SNOMED CT, LOINC answers
    for word in words:
        try:
            value = known.get(word) or parse_field(field, word)
        except ClinicalError:
            continue
        if isinstance(value, str):
            return value
    notes.append(f"{where}: left out, its {field} is not one of {FIELDS[field].range_text}.")
    return None


def _latest(field: str, values: list[_Value], notes: list[str]) -> _Value:
    """The last in time; of those without or with the same time the last in the Bundle."""
    last = values[0]
    for one in values[1:]:
        if one.when >= last.when:
            last = one
    if len({one.value for one in values}) > 1:
        day = "the last one in the Bundle, none has a time" if last.when == _EPOCH else f"that of {last.when.date()}"
        notes.append(f"{field}: there are {len(values)} values; {day} is used.")
    return last


def _add_patient(
    fields: dict[str, float | str], patient: Mapping[str, Any], day: date | None, notes: list[str]
) -> None:
    if "sex" not in fields:
        birth_sex = next(
            (one.get("valueCode") for one in _objects(patient.get("extension")) if one.get("url") == BIRTH_SEX), None
        )
        sex = {"F": "F", "M": "M", "female": "F", "male": "M"}.get(str(birth_sex or patient.get("gender")))
        if sex is not None:
            fields["sex"] = sex
    if "age_years" in fields or not patient.get("birthDate"):
        return
    born = _moment(patient.get("birthDate"))
    if born == _EPOCH:
        notes.append("Patient: its birthDate is not a date; the age was left unknown.")
    elif day is None:
        notes.append(
            "Patient: nothing in the Bundle has a date, so that the birthDate gives no age; it stays unknown."
        )
    elif day < born.date():
        notes.append("Patient: the birthDate is after the values; the age was left unknown.")
    else:
        fields["age_years"] = round((day - born.date()).days / 365.2425, 2)


def _effective(resource: Mapping[str, Any]) -> datetime:
    period = resource.get("effectivePeriod")
    spans = (period.get("end"), period.get("start")) if isinstance(period, Mapping) else ()
    for text in (resource.get("effectiveDateTime"), resource.get("effectiveInstant"), *spans, resource.get("issued")):
        moment = _moment(text)
        if moment > _EPOCH:
            return moment
    return _EPOCH


def _moment(text: object) -> datetime:
    """The start of a FHIR date, dateTime or instant; `_EPOCH` where it is none."""
    match = _DATE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return _EPOCH
    try:
        if match[4]:
            exact = datetime.fromisoformat(re.sub(r"Z$", "+00:00", str(text)))
            return exact if exact.tzinfo else exact.replace(tzinfo=timezone.utc)
        return datetime(int(match[1]), int(match[2] or 1), int(match[3] or 1), tzinfo=timezone.utc)
    except ValueError:
        return _EPOCH


def _codings(concept: object) -> list[Mapping[str, Any]]:
    return _objects(concept.get("coding")) if isinstance(concept, Mapping) else []


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
