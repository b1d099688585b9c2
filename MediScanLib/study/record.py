"""`ClinicalRecord`: what is known of the patient; the rest is unknown, not zero."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, model_validator

from ..errors import ClinicalError
from .fields import FIELDS, FieldInfo
from .values import parse_field, unknown_field_message

__all__ = ["FIELDS", "ClinicalRecord", "FieldInfo"]


class ClinicalRecord(BaseModel):
    """Ten clinical values, each with a unit, a plausible range and a LOINC code (`FIELDS`), each possibly unknown.

    Values may be numbers or text with a decimal comma or a unit ("38,4 C"); see `parse_field`.

    Attributes:
        prefilled: Names of fields that came from the image header and not from the user.

    Raises:
        ClinicalError: A value out of range or not understood, or a field that does not exist.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    age_years: float | None = None
    sex: Literal["F", "M"] | None = None
    temperature_c: float | None = None
    heart_rate_per_min: float | None = None
    respiratory_rate_per_min: float | None = None
    spo2_percent: float | None = None
    leukocytes_1e9_per_l: float | None = None
    neutrophils_1e9_per_l: float | None = None
    lymphocytes_1e9_per_l: float | None = None
    crp_mg_per_l: float | None = None
    prefilled: tuple[str, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _parse(cls, data: object) -> object:
        if not isinstance(data, Mapping):
            raise ClinicalError(f"A clinical record is an object of field names and values, not {data!r}.")
        parsed: dict[str, Any] = {
            str(name): parse_field(str(name), raw) for name, raw in data.items() if name != "prefilled"
        }
        prefilled = data.get("prefilled") or ()
        if isinstance(prefilled, str) or not all(isinstance(name, str) for name in prefilled):
            raise ClinicalError(f"prefilled: {prefilled!r} is not a list of field names.")
        for name in prefilled:
            if name not in FIELDS:
                raise ClinicalError("prefilled: " + unknown_field_message(name))
            if parsed.get(name) is None:
                raise ClinicalError(f"prefilled: {name} is marked as prefilled but has no value.")
        return {**parsed, "prefilled": tuple(prefilled)}

    @property
    def known(self) -> dict[str, float | str]:
        """The known values by field name."""
        return {name: value for name in FIELDS if (value := getattr(self, name)) is not None}

    @property
    def missing(self) -> list[str]:
        """Names of the unknown fields."""
        return [name for name in FIELDS if getattr(self, name) is None]

    def with_prefill(self, header: Mapping[str, float | str]) -> ClinicalRecord:
        """This record with unknown fields filled from an image header and marked as prefilled.

        What the user gave is never overwritten. Header values out of range are left out; `refused_prefill` names them.
        """
        usable = {
            name: value
            for name, value in header.items()
            if name in FIELDS and getattr(self, name) is None and _is_acceptable(name, value)
        }
        return ClinicalRecord(**self.known, **usable, prefilled=(*self.prefilled, *usable))

    def encode(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """Values in the units of `FIELDS` and the mask of known ones, both (10,), in the order of `FIELDS`.

        Coded fields become the position of the code (sex: F 0, M 1). Unknown values stand as 0 and must be masked.
        """
        values = np.zeros(len(FIELDS), dtype=np.float32)
        known = np.zeros(len(FIELDS), dtype=np.bool_)
        for position, (name, info) in enumerate(FIELDS.items()):
            value = getattr(self, name)
            if value is not None:
                values[position] = info.choices.index(value) if info.choices else value
                known[position] = True
        return values, known


def refused_prefill(header: Mapping[str, float | str]) -> list[str]:
    """One sentence for each header value that is out of range and therefore not used."""
    sentences = []
    for name, value in header.items():
        try:
            parse_field(name, value)
        except ClinicalError as error:
            sentences.append(f"Not taken from the image header: {error}")
    return sentences


def _is_acceptable(name: str, value: object) -> bool:
    try:
        return parse_field(name, value) is not None
    except ClinicalError:
        return False
