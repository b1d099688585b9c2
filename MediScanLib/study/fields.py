"""The ten clinical fields that feed the network: units, plausible ranges, LOINC codes. Standard library only.

LOINC codes: https://loinc.org. Ranges are what a living patient can have, wide on purpose: they catch slips of unit
and decimal point, not illness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True)
class FieldInfo:
    """One clinical field.

    Attributes:
        name: Name in ClinicalRecord, JSON and CSV.
        title: Label for people.
        unit: UCUM-like unit text, empty for a coded field.
        minimum: Smallest plausible value.
        maximum: Largest plausible value.
        loinc: LOINC code.
        description: One sentence for a tooltip.
        units: Unit spellings understood after a number (lower case, no spaces), each with (factor, offset) so that
            value in `unit` = factor * number + offset.
        choices: Allowed codes of a coded field, in the order of their numeric value 0, 1...; empty for a number.
        aliases: Other names people use, to suggest the right one.
    """

    name: str
    title: str
    unit: str
    minimum: float
    maximum: float
    loinc: str
    description: str
    units: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    choices: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def range_text(self) -> str:
        """The allowed values in words, such as "25 to 45 °C" or "F or M"."""
        if self.choices:
            return " or ".join(self.choices)
        return f"{self.minimum:g} to {self.maximum:g} {self.unit}".rstrip()


_PER_MIN = {"/min": (1.0, 0.0), "1/min": (1.0, 0.0), "permin": (1.0, 0.0), "perminute": (1.0, 0.0)}
_CELLS = {
    **dict.fromkeys(("10^9/l", "10*9/l", "1e9/l", "x10^9/l", "x10e9/l", "10e9/l", "/nl", "g/l", "gpt/l"), (1.0, 0.0)),
    **dict.fromkeys(("10^3/ul", "10*3/ul", "x10^3/ul", "k/ul", "1000/ul", "10^3/mm3"), (1.0, 0.0)),
    **dict.fromkeys(("/ul", "cells/ul", "/mm3"), (0.001, 0.0)),
}

_ALL = (
    FieldInfo(
        "age_years",
        "Age",
        "years",
        0,
        120,
        "30525-0",
        "Age at the time of the study.",
        {
            **dict.fromkeys(("years", "year", "yrs", "yr", "y", "a"), (1.0, 0.0)),
            **dict.fromkeys(("months", "month", "mo"), (1 / 12, 0.0)),
            **dict.fromkeys(("weeks", "week", "w"), (7 / 365.25, 0.0)),
            **dict.fromkeys(("days", "day", "d"), (1 / 365.25, 0.0)),
        },
        aliases=("age", "patient_age"),
    ),
    FieldInfo(
        "sex",
        "Sex",
        "",
        0,
        1,
        "76689-9",
        "Sex assigned at birth; leave unknown where it is neither F nor M.",
        choices=("F", "M"),
        aliases=("gender", "patient_sex"),
    ),
    FieldInfo(
        "temperature_c",
        "Temperature",
        "°C",
        25,
        45,
        "8310-5",
        "Body temperature.",
        {
            **dict.fromkeys(("c", "°c", "celsius", "degc", "cel"), (1.0, 0.0)),
            **dict.fromkeys(("f", "°f", "fahrenheit", "degf"), (5 / 9, -160 / 9)),
        },
        aliases=("temperature", "temp", "fever"),
    ),
    FieldInfo(
        "heart_rate_per_min",
        "Heart rate",
        "/min",
        10,
        300,
        "8867-4",
        "Heart rate.",
        {**_PER_MIN, "bpm": (1.0, 0.0), "beats/min": (1.0, 0.0)},
        aliases=("heart_rate", "hr", "pulse", "pulse_rate"),
    ),
    FieldInfo(
        "respiratory_rate_per_min",
        "Respiratory rate",
        "/min",
        2,
        100,
        "9279-1",
        "Breaths per minute.",
        {**_PER_MIN, "breaths/min": (1.0, 0.0)},
        aliases=("respiratory_rate", "rr", "breathing_rate"),
    ),
    FieldInfo(
        "spo2_percent",
        "Oxygen saturation",
        "%",
        20,
        100,
        "59408-5",
        "Oxygen saturation in arterial blood by pulse oximetry, in percent (97, not 0.97).",
        {"%": (1.0, 0.0), "percent": (1.0, 0.0)},
        aliases=("spo2", "sao2", "saturation", "oxygen_saturation"),
    ),
    FieldInfo(
        "leukocytes_1e9_per_l",
        "Leukocytes",
        "10⁹/L",
        0,
        500,
        "26464-8",
        "Leukocytes in blood.",
        _CELLS,
        aliases=("leukocytes", "wbc", "white_blood_cells", "leucocytes"),
    ),
    FieldInfo(
        "neutrophils_1e9_per_l",
        "Neutrophils",
        "10⁹/L",
        0,
        300,
        "26499-4",
        "Neutrophils in blood, absolute count.",
        _CELLS,
        aliases=("neutrophils", "anc", "neutrophil_count"),
    ),
    FieldInfo(
        "lymphocytes_1e9_per_l",
        "Lymphocytes",
        "10⁹/L",
        0,
        400,
        "26474-7",
        "Lymphocytes in blood, absolute count.",
        _CELLS,
        aliases=("lymphocytes", "alc", "lymphocyte_count"),
    ),
    FieldInfo(
        "crp_mg_per_l",
        "C-reactive protein",
        "mg/L",
        0,
        800,
        "1988-5",
        "C-reactive protein in serum or plasma.",
        {"mg/l": (1.0, 0.0), "ug/ml": (1.0, 0.0), "mg/dl": (10.0, 0.0)},
        aliases=("crp", "c_reactive_protein"),
    ),
)

FIELDS: Mapping[str, FieldInfo] = MappingProxyType({info.name: info for info in _ALL})
"""The ten fields by name, in the order in which they feed the network."""
