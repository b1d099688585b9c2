"""The coded terms of MediScan's DICOM objects, each with its source. Standard library only.

SNOMED CT (SCT) terms of the CIDs named beside them are free to use in DICOM objects (PS3.16, 8.1). RadLex (RADLEX):
https://radlex.org. What no standard has a code for carries one of MediScan's own scheme (`OWN_SCHEME`).
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

OWN_SCHEME = "99MEDISCAN"
OWN_SCHEME_NAME = "Terms of MediScan that no standard has a code for"


@dataclass(frozen=True)
class Term:
    """A coded term.

    Attributes:
        value: Code Value, at most 16 characters.
        scheme: Coding Scheme Designator.
        meaning: Code Meaning, at most 64 characters.
    """

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class FindingTerm:
    """A finding in the vocabularies that have it.

    Attributes:
        term: The one that objects carry.
        radlex: The same in RadLex, None where RadLex has no such class.
    """

    term: Term
    radlex: Term | None = None


_FINDINGS: Mapping[str, FindingTerm] = MappingProxyType(
    {
        "normal": FindingTerm(Term("17621005", "SCT", "Normal")),  # CID 222
        "pneumonia": FindingTerm(Term("233604007", "SCT", "Pneumonia"), Term("RID5350", "RADLEX", "Pneumonia")),
        "covid": FindingTerm(Term("840539006", "SCT", "COVID-19")),
        "fracture": FindingTerm(Term("125605004", "SCT", "Fracture of bone"), Term("RID4650", "RADLEX", "Fracture")),
        "cancer": FindingTerm(Term("363346000", "SCT", "Malignant neoplastic disease")),
    }
)

ARTIFICIAL_INTELLIGENCE = Term("123110", "DCM", "Artificial Intelligence")  # CID 7162
BASIC_PROFILE = Term("113100", "DCM", "Basic Application Confidentiality Profile")  # CID 7050
REPORT_TITLE = Term("126000", "DCM", "Imaging Measurement Report")  # CID 7021
DEVICE = Term("121007", "DCM", "Device")  # CID 270
CERTAINTY_OF_FINDING = Term("111012", "DCM", "Certainty of Finding")  # PS3.16 annex D: 0 to 100 percent
PRESENCE = Term("121052", "DCM", "Presence of property")
COMMENT = Term("121106", "DCM", "Comment")
SEVERITY = Term("246112005", "SCT", "Severity")
FINDING_CATEGORY = Term("404684003", "SCT", "Clinical finding")  # what a heat map's segment is of
REFERENCED_SEGMENT = Term("121191", "DCM", "Referenced Segment")
SOURCE_IMAGE = Term("121322", "DCM", "Source image for image processing operation")  # CID 7202
GRADIENT_CLASS_ACTIVATION = Term("130403", "DCM", "Gradient-weighted class activation")  # CID 218
SALIENCY = Term("130404", "DCM", "Saliency")  # CID 218

PERCENT = Term("%", "UCUM", "Percent")
NO_UNITS = Term("1", "UCUM", "no units")

YES = Term("373066001", "SCT", "Yes")  # CID 230
NO = Term("373067005", "SCT", "No")  # CID 230
SEXES: Mapping[str, Term] = MappingProxyType({"F": Term("F", "DCM", "Female"), "M": Term("M", "DCM", "Male")})
"""CID 7455."""

_PER_MINUTE = Term("/min", "UCUM", "per minute")
_CELLS = Term("10*9/L", "UCUM", "billion per liter")
FIELD_UNITS: Mapping[str, Term] = MappingProxyType(
    {
        "age_years": Term("a", "UCUM", "year"),
        "temperature_c": Term("Cel", "UCUM", "degree Celsius"),
        "heart_rate_per_min": _PER_MINUTE,
        "respiratory_rate_per_min": _PER_MINUTE,
        "spo2_percent": PERCENT,
        "leukocytes_1e9_per_l": _CELLS,
        "neutrophils_1e9_per_l": _CELLS,
        "lymphocytes_1e9_per_l": _CELLS,
        "crp_mg_per_l": Term("mg/L", "UCUM", "milligram per liter"),
    }
)
"""UCUM unit of each clinical field that is a number."""

DECISIONS: Mapping[str, Term] = MappingProxyType(
    {
        "present": Term("52101004", "SCT", "Present"),  # CID 240
        "absent": Term("272519000", "SCT", "Absent"),  # CID 240
        "unsure": Term("82334004", "SCT", "Indeterminate"),
    }
)
"""The decision on a finding."""

_GRADES: Mapping[str, Term] = MappingProxyType(
    {  # CID 3716
        "none": Term("260413007", "SCT", "None"),
        "mild": Term("255604002", "SCT", "Mild"),
        "moderate": Term("6736007", "SCT", "Moderate"),
        "severe": Term("24484000", "SCT", "Severe"),
    }
)

_PROCEDURES: Mapping[str, Term] = MappingProxyType(
    {
        **dict.fromkeys(("CR", "DX", "DR", "RG", "XR"), Term("168537006", "SCT", "Plain radiography")),
        "CT": Term("77477000", "SCT", "Computed tomography"),
        "US": Term("16310003", "SCT", "Ultrasonography"),
        "MR": Term("113091000", "SCT", "Magnetic resonance imaging"),
        "MG": Term("71651007", "SCT", "Mammography"),
    }
)
_ANY_PROCEDURE = Term("363679005", "SCT", "Imaging procedure")

THRESHOLD = Term("threshold", OWN_SCHEME, "Operating point of the model")
WHOLE_STUDY = Term("study", OWN_SCHEME, "The study as a whole")
SEVERITY_SCORE = Term("severity-score", OWN_SCHEME, "Severity score, share of the scale's maximum")
SEVERITY_VALUE = Term("severity-value", OWN_SCHEME, "Severity on its scale")
TOTAL_UNCERTAINTY = Term("total", OWN_SCHEME, "Total uncertainty, share of the largest entropy")
EPISTEMIC_UNCERTAINTY = Term("epistemic", OWN_SCHEME, "Model's own uncertainty, share of the largest entropy")
NOVELTY = Term("novelty", OWN_SCHEME, "Distance from the training images, multiple of the limit")
PREDICTION_SET = Term("set", OWN_SCHEME, "Findings that cannot be excluded")
DEFERRAL = Term("deferral", OWN_SCHEME, "Left to a human")
CLINICAL_VALUE = Term("clinical", OWN_SCHEME, "Clinical values that the model saw")


def finding_term(label: str) -> Term:
    """The term of a finding; one of MediScan's own scheme for a label that is in no table here."""
    known = _FINDINGS.get(label.strip().lower())
    return known.term if known else Term(_short_code(label), OWN_SCHEME, _meaning(label))


def radlex_of(snomed: str) -> Term | None:
    """The RadLex term for a finding's SNOMED CT code, None where RadLex has none."""
    return next((known.radlex for known in _FINDINGS.values() if known.term.value == snomed), None)


def grade_term(grade: str) -> Term:
    """The term of a severity's grade."""
    return _GRADES.get(grade.strip().lower()) or Term(_short_code(grade), OWN_SCHEME, _meaning(grade))


def procedure_term(modality: str | None) -> Term:
    """The kind of examination."""
    return _PROCEDURES.get(modality or "", _ANY_PROCEDURE)


def map_term(method: str) -> Term:
    """What the values of a heat map are.

    Args:
        method: One of `explanations.METHODS`.
    """
    return GRADIENT_CLASS_ACTIVATION if method in ("gradcam", "gradcam++", "layercam") else SALIENCY


def _short_code(text: str) -> str:
    """At most 16 characters of the kind that a Code Value may hold; long ones end in a checksum."""
    plain = re.sub(r"[^a-z0-9_-]+", "-", text.strip().lower()).strip("-")
    if plain and plain == text.strip().lower() and len(plain) <= 16:
        return plain
    return f"{plain[:7]}-{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"


def _meaning(text: str) -> str:
    return " ".join(text.replace("\\", " ").split())[:64] or "unnamed"
