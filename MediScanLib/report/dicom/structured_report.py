"""What was said as a structured report: Comprehensive 3D SR, template TID 1500 (PS3.16)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset

from ...prediction.result import Finding, Prediction
from ...prediction.sentences import trust_sentences
from ...study.fields import FIELDS
from . import codes
from .codes import Term
from .highdicom_objects import (
    MANUFACTURER,
    algorithm_item,
    code,
    equipment,
    finish,
    identity,
    load,
    own_scheme,
    stand_ins,
)
from .source import SourceImages
from .uids import ResultUids, device_uid


def make_structured_report(
    prediction: Prediction,
    sources: SourceImages,
    uids: ResultUids,
    *,
    segmentation: Dataset | None = None,
    others: Sequence[Dataset] = (),
    with_clinical: bool = True,
    when: datetime | None,
) -> Dataset:
    """A report that nobody has verified.

    One measurement group a finding, with its certainty in percent, the decision and the threshold behind it, the
    algorithm, and the heat map's segment where there is one; a group for the study as a whole, with severity,
    uncertainty, the reasons to leave it to a human, and the research-use notice.

    Args:
        prediction: What was said.
        sources: The images.
        uids: UIDs of this result.
        segmentation: The heat maps, referred to by each finding that has one.
        others: Further objects of the same result, listed as evidence.
        with_clinical: Whether to state the clinical values that the model saw.
        when: Time of creation; see `finish`.
    """
    sr = load("highdicom.sr")
    groups = [_finding_group(finding, prediction, sources, uids, segmentation) for finding in prediction.findings]
    groups.append(_study_group(prediction, uids))
    if with_clinical and prediction.clinical.used:
        groups.append(_clinical_group(prediction, uids))
    model = prediction.provenance
    context = sr.ObservationContext(
        observer_device_context=sr.ObserverContext(
            observer_type=code(codes.DEVICE),
            observer_identifying_attributes=sr.DeviceObserverIdentifyingAttributes(
                uid=device_uid(model.model_sha256),
                name="MediScan",
                manufacturer_name=MANUFACTURER,
                model_name=f"{model.model} {model.model_version}",
                serial_number=model.model_sha256,
            ),
        )
    )
    content = sr.MeasurementReport(
        observation_context=context,
        procedure_reported=code(codes.procedure_term(prediction.image.modality)),
        imaging_measurements=groups,
        title=code(codes.REPORT_TITLE),
    )
    for item in _items(content[0]):
        _add_equivalents(item)
    root = content[0]
    tree = root.ContentSequence
    root.ContentSequence = tree[:1]  # the constructor copies and searches it several times, which costs most of all
    made = sr.Comprehensive3DSR(
        evidence=[*stand_ins(sources), *(others if segmentation is None else (segmentation, *others))],
        content=root,
        instance_number=1,
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description="MediScan findings (research use only)",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **identity(uids, "sr"),
        **equipment(prediction),
    )
    made.ContentSequence = tree
    if schemes := own_scheme([codes.WHOLE_STUDY]):
        made.CodingSchemeIdentificationSequence = schemes
    return finish(made, sources, uids, "sr", when)


def _finding_group(
    finding: Finding,
    prediction: Prediction,
    sources: SourceImages,
    uids: ResultUids,
    segmentation: Dataset | None,
) -> Any:
    sr = load("highdicom.sr")
    properties = None
    if finding.interval is not None:
        low, high = finding.interval
        properties = sr.MeasurementProperties(
            upper_measurement_uncertainty=_percent(max(0.0, high - finding.probability)),
            lower_measurement_uncertainty=_percent(max(0.0, finding.probability - low)),
        )
    certainty = sr.Measurement(
        name=code(codes.CERTAINTY_OF_FINDING),
        value=_percent(finding.probability),
        unit=code(codes.PERCENT),
        properties=properties,
    )
    threshold = _number(codes.THRESHOLD, _percent(finding.threshold), codes.PERCENT)
    for item in _items(certainty[0])[1:]:  # highdicom gives the range no unit, and it is in that of the value
        item.MeasuredValueSequence[0].MeasurementUnitsCodeSequence = [sr.CodedConcept.from_code(code(codes.PERCENT))]
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(uids, finding.label),
        finding_type=code(codes.finding_term(finding.label)),
        finding_category=code(codes.FINDING_CATEGORY),
        algorithm_id=algorithm_item(
            prediction,
            "probability calibrated on held-out data" if finding.calibrated else "probability not calibrated",
            f"operating point: {finding.operating_point}" if finding.operating_point else None,
            "uncertainty: 5th and 95th percentile over dropout samples of the head" if finding.interval else None,
        ),
        measurements=[certainty, threshold],
        qualitative_evaluations=[
            sr.QualitativeEvaluation(code(codes.PRESENCE), code(codes.DECISIONS[finding.decision]))
        ],
        source_images=[_source_image(finding.label, prediction, sources)],
    )
    number = _segment_number(segmentation, finding.label)
    if segmentation is not None and number is not None:
        group[0].ContentSequence.append(
            sr.ImageContentItem(
                name=code(codes.REFERENCED_SEGMENT),
                referenced_sop_class_uid=segmentation.SOPClassUID,
                referenced_sop_instance_uid=segmentation.SOPInstanceUID,
                referenced_segment_numbers=number,
                relationship_type="CONTAINS",
            )
        )
    return group


def _source_image(label: str, prediction: Prediction, sources: SourceImages) -> Any:
    """The image where the finding's heat map is hottest; the middle one where there is no map."""
    summary = next((one for one in prediction.heat_maps if one.label == label), None)
    at = summary.index[0] if summary else (prediction.image.shape[0] - 1) / 2
    nearest = min(range(len(sources.places)), key=lambda index: abs(sources.places[index].slice_index - at))
    dataset = stand_ins(sources)[0 if sources.is_multiframe else nearest]
    return load("highdicom.sr").SourceImageForMeasurementGroup(
        referenced_sop_class_uid=dataset.SOPClassUID,
        referenced_sop_instance_uid=dataset.SOPInstanceUID,
        referenced_frame_numbers=[nearest + 1] if sources.is_multiframe else None,
    )


def _study_group(prediction: Prediction, uids: ResultUids) -> Any:
    """What was said of the study as a whole, in numbers and in sentences."""
    sr = load("highdicom.sr")
    severity, certainty = prediction.severity, prediction.certainty
    numbers, evaluations = [], []
    if severity.applicable and severity.score is not None:
        numbers.append(_number(codes.SEVERITY_SCORE, severity.score, codes.NO_UNITS))
        if severity.value is not None:
            numbers.append(_number(codes.SEVERITY_VALUE, severity.value, codes.NO_UNITS))
        if severity.grade:
            evaluations.append(sr.QualitativeEvaluation(code(codes.SEVERITY), code(codes.grade_term(severity.grade))))
    if certainty.uncertainty is not None:
        numbers.append(_number(codes.TOTAL_UNCERTAINTY, certainty.uncertainty.total, codes.NO_UNITS))
        numbers.append(_number(codes.EPISTEMIC_UNCERTAINTY, certainty.uncertainty.epistemic, codes.NO_UNITS))
    if certainty.novelty is not None:
        numbers.append(_number(codes.NOVELTY, certainty.novelty, codes.NO_UNITS))
    evaluations.append(
        sr.QualitativeEvaluation(code(codes.DEFERRAL), code(codes.YES if certainty.deferred else codes.NO))
    )
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(uids, "study"),
        finding_type=code(codes.WHOLE_STUDY),
        algorithm_id=algorithm_item(prediction),
        measurements=numbers,
        qualitative_evaluations=evaluations,
    )
    for sentence in _sentences(prediction):
        group[0].ContentSequence.append(
            sr.TextContentItem(name=code(codes.COMMENT), value=_text(sentence), relationship_type="CONTAINS")
        )
    return group


def _sentences(prediction: Prediction) -> list[str]:
    severity = prediction.severity
    scale = f"Severity is given on {severity.scale}." if severity.applicable and severity.scale else severity.reason
    return [
        prediction.notice,
        *(f"Leave to a human: {reason.message}" for reason in prediction.certainty.reasons),
        *([scale] if scale else []),
        *trust_sentences(prediction),
        *([prediction.volume_rule] if prediction.volume_rule else []),
    ]


def _clinical_group(prediction: Prediction, uids: ResultUids) -> Any:
    """The clinical values that the model saw, under their LOINC codes."""
    sr = load("highdicom.sr")
    numbers, evaluations = [], []
    for name, value in prediction.clinical.used.items():
        info = FIELDS[name]
        concept = code(Term(info.loinc, "LN", info.title))
        if isinstance(value, str):
            evaluations.append(sr.QualitativeEvaluation(concept, code(codes.SEXES[value])))
        else:
            numbers.append(sr.Measurement(name=concept, value=_decimal(value), unit=code(codes.FIELD_UNITS[name])))
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(uids, "clinical"),
        finding_type=code(codes.CLINICAL_VALUE),
        algorithm_id=algorithm_item(prediction),
        measurements=numbers,
        qualitative_evaluations=evaluations,
    )


def _segment_number(segmentation: Dataset | None, label: str) -> int | None:
    if segmentation is None:
        return None
    wanted = f"Heat map: {label}"[:64]
    return next((int(one.SegmentNumber) for one in segmentation.SegmentSequence if one.SegmentLabel == wanted), None)


def _tracking(uids: ResultUids, what: str) -> Any:
    return load("highdicom.sr").TrackingIdentifier(identifier=f"MediScan {what}", uid=uids.of("tracking", what))


def _number(name: Term, value: float, unit: Term) -> Any:
    return load("highdicom.sr").Measurement(name=code(name), value=_decimal(value), unit=code(unit))


def _percent(share: float) -> float:
    return round(100 * share, 3)


def _decimal(value: float) -> float:
    """At most 16 characters, as Decimal String holds (PS3.5, 6.2)."""
    return float(f"{value:.6g}")


def _text(sentence: str) -> str:
    return " ".join(sentence.split())


def _items(item: Dataset) -> list[Dataset]:
    below = list(item.get("ContentSequence", ()))
    return [item, *(one for child in below for one in _items(child))]


def _add_equivalents(item: Dataset) -> None:
    """Beside a finding's SNOMED CT code its RadLex code (PS3.3, 8.8)."""
    for concept in item.get("ConceptCodeSequence", ()):
        radlex = codes.radlex_of(str(concept.get("CodeValue", "")))
        if radlex is not None:
            concept.EquivalentCodeSequence = [load("highdicom.sr").CodedConcept.from_code(code(radlex))]
