"""From what people type to clinical values: numbers with decimal commas and unit suffixes, and words for unknown."""

from __future__ import annotations

import difflib
import math
import re
from numbers import Real

from ..errors import ClinicalError
from .fields import FIELDS, FieldInfo

UNKNOWN_WORDS = frozenset({"", "unknown", "unk", "na", "n/a", "nan", "null", "none", "missing", "?", "-", "--"})
_NUMBER = re.compile(r"(?P<number>[+-]?\d+(?:[.,]\d+)?(?:[eE][+-]?\d+)?)\s*(?P<unit>.*)", re.DOTALL)
_SEX_WORDS = {"f": "F", "female": "F", "w": "F", "woman": "F", "m": "M", "male": "M", "man": "M"}


def parse_field(name: str, raw: object) -> float | str | None:
    """The value of a field from a number, a text or nothing; None means unknown.

    Text may carry a decimal comma ("38,4") and a unit ("38.4 C", "101 F", "2.3 mg/dL"), which is converted.

    Raises:
        ClinicalError: Unknown field, or a value that is not understood or out of the plausible range.
    """
    info = FIELDS.get(name)
    if info is None:
        raise ClinicalError(unknown_field_message(name))
    if raw is None:
        return None
    if isinstance(raw, str) and raw.strip().lower() in UNKNOWN_WORDS:
        return None
    if isinstance(raw, Real) and raw != raw:  # NaN of any kind, NumPy's included
        return None
    return _parse_choice(info, raw) if info.choices else _parse_number(info, raw)


def unknown_field_message(name: str) -> str:
    """Says that there is no such field, which one may be meant, and which there are."""
    folded = name.strip().lower().replace(" ", "_").replace("-", "_")
    spellings = {alias: info.name for info in FIELDS.values() for alias in (info.name, *info.aliases)}
    near = difflib.get_close_matches(folded, spellings, n=1, cutoff=0.6)
    hint = f"Did you mean {spellings[near[0]]!r}? " if near else ""
    return f"There is no clinical field {name!r}. {hint}The fields are {', '.join(FIELDS)}."


def _parse_choice(info: FieldInfo, raw: object) -> str:
    code = _SEX_WORDS.get(raw.strip().lower()) if isinstance(raw, str) else None
    if code is None:
        raise ClinicalError(
            f"{info.name}: {raw!r} is not one of {info.range_text}. Give one of them, or leave it out."
        )
    return code


def _parse_number(info: FieldInfo, raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, (Real, str)):
        raise ClinicalError(
            f"{info.name}: {raw!r} is not a number. Give a value in {info.unit}, or leave it out if unknown."
        )
    try:
        value = _number_from_text(info, raw) if isinstance(raw, str) else float(raw)
    except OverflowError:  # a whole number of hundreds of digits
        value = math.inf
    if not info.minimum <= value <= info.maximum:
        hint = ""
        if info.unit == "%" and 0 < value <= 1:
            hint = f" {value:g} looks like a fraction: give {value * 100:g}."
        raise ClinicalError(
            f"{info.name}: {raw if isinstance(raw, str) else format(value, 'g')} is outside the plausible range "
            f"{info.range_text}.{hint} Check value and unit, or leave it out if unknown."
        )
    return value


def _number_from_text(info: FieldInfo, text: str) -> float:
    stripped = text.strip()
    if stripped[:1] in "<>≤≥~":
        raise ClinicalError(
            f"{info.name}: {text!r} is a limit, not a value. Give the measured number in {info.unit}, "
            "or leave it out if unknown."
        )
    match = _NUMBER.fullmatch(stripped)
    if match is None:
        raise ClinicalError(
            f"{info.name}: {text!r} is not a number. Give a value in {info.unit}, or leave it out if unknown."
        )
    number = match["number"]
    if re.fullmatch(r"[+-]?\d{1,3},\d{3}", number):
        raise ClinicalError(
            f"{info.name}: {text!r} may mean {number.replace(',', '.')} or {number.replace(',', '')}. "
            "Write it with a decimal point or without a separator."
        )
    value = float(number.replace(",", "."))
    unit = "".join(match["unit"].split()).lower().replace("µ", "u").replace("μ", "u")
    unit = unit.replace("⁹", "^9").replace("³", "^3").replace("×", "x")
    if unit:
        if unit not in info.units:
            known = ", ".join(sorted(info.units))
            raise ClinicalError(
                f"{info.name}: the unit of {text!r} is not understood. Give the value in {info.unit} "
                f"(understood: {known})."
            )
        factor, offset = info.units[unit]
        value = factor * value + offset
    return value
