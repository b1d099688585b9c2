"""A prediction as a FHIR R4 (4.0.1) Bundle: a DiagnosticReport, its Observations, and the ImagingStudy.

R4 and not R5, because it is what servers speak. In R5 `DiagnosticReport.imagingStudy` became `study`, and the modality
of an ImagingStudy's series a CodeableConcept; nothing else that stands here differs.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..prediction.result import Finding, Prediction
from ..prediction.sentences import trust_sentences
from ..writing import atomic_write
from .dicom import codes
from .dicom.codes import Term

if TYPE_CHECKING:
    from .dicom.source import SourceImages

_SYSTEMS = {
    "SCT": "http://snomed.info/sct",
    "DCM": "http://dicom.nema.org/resources/ontology/DCM",
    "RADLEX": "http://radlex.org",
    "LN": "http://loinc.org",
    "UCUM": "http://unitsofmeasure.org",
    codes.OWN_SCHEME: "urn:mediscan:terms",
}
_IMAGING_STUDY_REPORT = Term("18748-4", "LN", "Diagnostic imaging study")
_NAMESPACE = uuid.UUID("5b1c1c0e-1f6d-5d0e-9f0a-3f4d5a0c7f11")


def make_fhir_bundle(
    prediction: Prediction, sources: SourceImages | None = None, *, when: datetime | None = None
) -> dict[str, Any]:
    """The Bundle as plain JSON-ready values; its status is preliminary, as nobody has looked at it.

    Its ids repeat for the same input, model and result.

    Args:
        prediction: What was said.
        sources: The DICOM images; without them there is no ImagingStudy and no patient to refer to.
        when: Time of issue with a time zone, now where None.
    """
    when = when or datetime.now(timezone.utc)
    builder = _Builder(prediction, sources, when)
    return builder.bundle()


def write_fhir_bundle(bundle: Mapping[str, Any], path: Path) -> None:
    """Write a Bundle as JSON in UTF-8.

    Raises:
        WriteError: It cannot be written; what was there before is untouched.
    """
    with atomic_write(path) as stream:
        stream.write((json.dumps(bundle, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


class _Builder:
    def __init__(self, prediction: Prediction, sources: SourceImages | None, when: datetime) -> None:
        from .dicom.uids import content_digest

        self._prediction = prediction
        self._sources = sources
        self._when = when.isoformat(timespec="seconds")
        instances = "" if sources is None else "\0".join(sorted(sources.instance_uids))
        self._seed = f"{instances}\0{prediction.provenance.model_sha256}\0{content_digest(prediction)}"

    def bundle(self) -> dict[str, Any]:
        prediction = self._prediction
        observations = [(f"finding {one.label}", self._finding(one)) for one in prediction.findings]
        if prediction.severity.applicable and prediction.severity.score is not None:
            observations.append(("severity", self._severity()))
        if prediction.certainty.novelty is not None or prediction.certainty.uncertainty is not None:
            observations.append(("certainty", self._certainty()))
        study = [] if self._sources is None else [("imaging study", self._imaging_study(self._sources))]
        report = ("report", self._report([what for what, _ in observations]))
        return {
            "resourceType": "Bundle",
            "type": "collection",
            "timestamp": self._when,
            "entry": [
                {"fullUrl": self._url(what), "resource": resource}
                for what, resource in (report, *observations, *study)
            ],
        }

    def _report(self, results: Sequence[str]) -> dict[str, Any]:
        prediction = self._prediction
        present = [one for one in prediction.findings if one.decision == "present"]
        return {
            "resourceType": "DiagnosticReport",
            "status": "preliminary",
            "category": [_concept(Term("RAD", "v2-0074", "Radiology"))],
            "code": _concept(_IMAGING_STUDY_REPORT),
            **self._subject(),
            "issued": self._when,
            "result": [{"reference": self._url(what)} for what in results],
            **({} if self._sources is None else {"imagingStudy": [{"reference": self._url("imaging study")}]}),
            "conclusion": " ".join(self._sentences()),
            **({"conclusionCode": [_finding_concept(one.label) for one in present]} if present else {}),
        }

    def _sentences(self) -> list[str]:
        prediction = self._prediction
        top = prediction.top
        return [
            f"Likeliest finding: {top.label}, probability {top.probability:.2f} ({top.decision}).",
            *(f"Leave to a human: {reason.message}" for reason in prediction.certainty.reasons),
            *trust_sentences(prediction),
            prediction.notice,
        ]

    def _observation(self, code: dict[str, Any], **rest: Any) -> dict[str, Any]:
        model = self._prediction.provenance
        return {
            "resourceType": "Observation",
            "status": "preliminary",
            "category": [
                {
                    "coding": [
                        {
                            "system": "http://terminology.hl7.org/CodeSystem/observation-category",
                            "code": "imaging",
                            "display": "Imaging",
                        }
                    ]
                }
            ],
            "code": code,
            **self._subject(),
            "issued": self._when,
            **({} if self._sources is None else {"derivedFrom": [{"reference": self._url("imaging study")}]}),
            "device": {
                "display": f"MediScan {model.model} {model.model_version}",
                "identifier": {"system": "urn:mediscan:model-sha256", "value": model.model_sha256},
            },
            "note": [{"text": self._prediction.notice}],
            **rest,
        }

    def _finding(self, finding: Finding) -> dict[str, Any]:
        parts = [
            _part(codes.CERTAINTY_OF_FINDING, 100 * finding.probability, codes.PERCENT),
            _part(codes.THRESHOLD, 100 * finding.threshold, codes.PERCENT),
        ]
        if finding.interval is not None:
            low, high = (_quantity(100 * share, codes.PERCENT) for share in finding.interval)
            parts.append({"code": {"text": "5th to 95th percentile"}, "valueRange": {"low": low, "high": high}})
        calibrated = "calibrated on held-out data" if finding.calibrated else "not calibrated"
        point = f"; {finding.operating_point}" if finding.operating_point else ""
        return self._observation(
            _finding_concept(finding.label),
            valueCodeableConcept=_concept(codes.DECISIONS[finding.decision]),
            method={"text": f"Probability {calibrated}{point}"},
            component=parts,
        )

    def _severity(self) -> dict[str, Any]:
        severity = self._prediction.severity
        assert severity.score is not None
        parts = [_part(codes.SEVERITY_SCORE, severity.score, codes.NO_UNITS)]
        if severity.value is not None:
            parts.append(_part(codes.SEVERITY_VALUE, severity.value, codes.NO_UNITS))
        value = {"valueCodeableConcept": _concept(codes.grade_term(severity.grade))} if severity.grade else {}
        method = {"method": {"text": severity.scale}} if severity.scale else {}
        return self._observation(_concept(codes.SEVERITY), **value, **method, component=parts)

    def _certainty(self) -> dict[str, Any]:
        certainty = self._prediction.certainty
        parts = []
        if certainty.uncertainty is not None:
            parts.append(_part(codes.TOTAL_UNCERTAINTY, certainty.uncertainty.total, codes.NO_UNITS))
            parts.append(_part(codes.EPISTEMIC_UNCERTAINTY, certainty.uncertainty.epistemic, codes.NO_UNITS))
        if certainty.novelty is not None:
            parts.append(_part(codes.NOVELTY, certainty.novelty, codes.NO_UNITS))
        return self._observation(_concept(codes.DEFERRAL), valueBoolean=certainty.deferred, component=parts)

    def _imaging_study(self, sources: SourceImages) -> dict[str, Any]:
        first = sources.datasets[0]
        modality = {"system": _SYSTEMS["DCM"], "code": str(first.get("Modality") or "OT")}
        return {
            "resourceType": "ImagingStudy",
            "status": "available",
            "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{first.StudyInstanceUID}"}],
            **(self._subject() or {"subject": {"display": "not stated"}}),
            "series": [
                {
                    "uid": str(first.SeriesInstanceUID),
                    "modality": modality,
                    "instance": [
                        {
                            "uid": str(one.SOPInstanceUID),
                            "sopClass": {"system": "urn:ietf:rfc:3986", "code": f"urn:oid:{one.SOPClassUID}"},
                        }
                        for one in sources.datasets
                    ],
                }
            ],
        }

    def _subject(self) -> dict[str, Any]:
        patient = "" if self._sources is None else str(self._sources.datasets[0].get("PatientID", ""))
        return {"subject": {"type": "Patient", "identifier": {"value": patient}}} if patient else {}

    def _url(self, what: str) -> str:
        return f"urn:uuid:{uuid.uuid5(_NAMESPACE, self._seed + chr(0) + what)}"


def _coding(term: Term) -> dict[str, str]:
    system = _SYSTEMS.get(term.scheme, f"http://terminology.hl7.org/CodeSystem/{term.scheme}")
    return {"system": system, "code": term.value, "display": term.meaning}


def _concept(term: Term) -> dict[str, Any]:
    return {"coding": [_coding(term)], "text": term.meaning}


def _finding_concept(label: str) -> dict[str, Any]:
    term = codes.finding_term(label)
    radlex = codes.radlex_of(term.value)
    return {"coding": [_coding(term), *([_coding(radlex)] if radlex else [])], "text": label}


def _quantity(value: float, unit: Term) -> dict[str, Any]:
    return {"value": round(value, 4), "unit": unit.meaning, "system": _SYSTEMS["UCUM"], "code": unit.value}


def _part(name: Term, value: float, unit: Term) -> dict[str, Any]:
    return {"code": _concept(name), "valueQuantity": _quantity(value, unit)}
