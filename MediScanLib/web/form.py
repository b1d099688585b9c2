"""The ten clinical values as the page shows them, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ClinicalError
from ..study.fields import FIELDS
from ..study.record import ClinicalRecord
from ..study.values import UNKNOWN_WORDS, parse_field

LONGEST_TEXT = 40


def field_rows() -> list[dict[str, Any]]:
    """What the page needs to draw the form."""
    return [
        {
            "name": info.name,
            "title": info.title,
            "unit": info.unit,
            "range": info.range_text,
            "choices": list(info.choices),
            "description": info.description,
            "minimum": info.minimum,
            "maximum": info.maximum,
            "step": step_of(info.minimum, info.maximum),
        }
        for info in FIELDS.values()
    ]


def step_of(minimum: float, maximum: float) -> float:
    """A step of a slider over a field's range."""
    return 0.1 if maximum - minimum <= 50 else 1.0


def problem_of(name: str, text: str) -> str:
    """What is wrong with what was entered for a field; empty where nothing is."""
    if len(text) > LONGEST_TEXT:
        return f"{FIELDS[name].title}: is too long. Enter a value from {FIELDS[name].range_text}."
    try:
        parse_field(name, text)
    except ClinicalError as error:
        # it begins with the field's own name, which stands beside it
        return str(error).removeprefix(f"{name}: ")
    return ""


def record_of(values: Mapping[str, str], stated: Mapping[str, float | str]) -> ClinicalRecord:
    """What was entered, as a record; a value that still is the image header's is marked as such.

    Args:
        values: Text by field name; empty for unknown.
        stated: What the header says.

    Raises:
        ClinicalError: A value is not acceptable.
    """
    record = ClinicalRecord.model_validate(dict(values))
    kept = tuple(name for name, value in stated.items() if getattr(record, name, None) == value)
    return record.model_copy(update={"prefilled": kept})


def stated_values(prefill: Mapping[str, float | str]) -> dict[str, float | str]:
    """What an image header states and a living patient can have."""
    usable = {}
    for name, value in prefill.items():
        if name in FIELDS and not problem_of(name, str(value)):
            parsed = parse_field(name, value)
            if parsed is not None:
                usable[name] = parsed
    return usable


def texts_of(values: Mapping[str, float | str | None]) -> dict[str, str]:
    """A text for each field, empty where it is unknown."""
    return {name: _text(values.get(name)) for name in FIELDS}


def is_unknown(text: str) -> bool:
    """Whether a text stands for no value."""
    return text.strip().lower() in UNKNOWN_WORDS


def value_text(name: str, value: float | str | None) -> str:
    """A clinical value with its unit, as people write it."""
    if value is None:
        return "unknown"
    return value if isinstance(value, str) else f"{value:g} {FIELDS[name].unit}".strip()


def _text(value: float | str | None) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:g}"
