"""Records that know less, or that say the opposite of the image."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

from ...study.record import ClinicalRecord
from ..datasets import Study
from .degradations import generator_of

SUBSETS_OF_A_SIZE = 20
"""At most so many sets of fields of each size, drawn without repetition: all sets of up to six known fields."""

WELL = {
    "temperature_c": 36.7,
    "heart_rate_per_min": 68,
    "respiratory_rate_per_min": 14,
    "spo2_percent": 98,
    "leukocytes_1e9_per_l": 6.5,
    "neutrophils_1e9_per_l": 4.0,
    "lymphocytes_1e9_per_l": 2.0,
    "crp_mg_per_l": 2,
}
"""What one would find in a healthy adult."""

ILL = {
    "temperature_c": 39.4,
    "heart_rate_per_min": 118,
    "respiratory_rate_per_min": 28,
    "spo2_percent": 86,
    "leukocytes_1e9_per_l": 17,
    "neutrophils_1e9_per_l": 15,
    "lymphocytes_1e9_per_l": 0.6,
    "crp_mg_per_l": 210,
}
"""What one would find in a severe infection."""


def with_fewer_fields(record: ClinicalRecord, key: str, seed: int) -> Iterator[tuple[int, ClinicalRecord]]:
    """Every subset of the known fields with its size, from none to all; see SUBSETS_OF_A_SIZE.

    Args:
        record: Clinical values.
        key: Name of the study, for what is drawn.
        seed: Of the run.
    """
    known = record.known
    names = list(known)
    for size in range(len(names) + 1):
        for chosen in _subsets(names, size, key, seed):
            yield size, ClinicalRecord(**{name: known[name] for name in chosen})


def _subsets(names: Sequence[str], size: int, key: str, seed: int) -> list[tuple[str, ...]]:
    if math.comb(len(names), size) <= SUBSETS_OF_A_SIZE:
        return list(combinations(names, size))
    generator = generator_of(seed, "fields", str(size), key)
    drawn: dict[tuple[int, ...], None] = {}
    while len(drawn) < SUBSETS_OF_A_SIZE:
        drawn[tuple(sorted(generator.choice(len(names), size, replace=False).tolist()))] = None
    return [tuple(names[i] for i in positions) for positions in drawn]


def contradicting(study: Study) -> ClinicalRecord:
    """Age and sex of the patient; healthy values for a study with a finding, those of an infection for one without."""
    known = study.record.known
    kept = {name: known[name] for name in ("age_years", "sex") if name in known}
    without_finding = study.label in ("normal", "benign", "no_pneumonia")
    return ClinicalRecord(**kept, **(ILL if without_finding else WELL))


def swapped(study: Study, studies: Sequence[Study], seed: int) -> ClinicalRecord | None:
    """The record of another patient of the same source with another label; None where no such record says anything."""
    donors = [
        other
        for other in studies
        if other.source == study.source
        and other.patient != study.patient
        and other.label != study.label
        and other.record.known
    ]
    if not donors:
        return None
    return donors[int(generator_of(seed, "swap", str(study.row)).integers(len(donors)))].record
