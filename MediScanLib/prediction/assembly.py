"""From scores and a card to a `Prediction`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ..config import InferenceConfig
from ..network.card import Card, Threshold
from ..study.image import MedicalImage
from ..study.record import FIELDS, ClinicalRecord, refused_prefill
from .attribution import Attribution
from .certainty import intervals, prediction_sets, uncertainty
from .deferral import Signs, deferral_reasons
from .heatmaps import HeatMaps
from .plausibility import Doubt, image_doubts, presentation_doubts
from .result import (
    Certainty,
    ClinicalContribution,
    ClinicalUse,
    Finding,
    HeatMapSummary,
    ImageSummary,
    ModalityShare,
    Prediction,
    Provenance,
    Severity,
    SimilarCase,
    SliceScore,
)


@dataclass(frozen=True)
class Scores:
    """What the network said.

    Attributes:
        probabilities: (sample, finding), rows sum to 1; a sample is a slice of a 2D network or the whole volume.
        severity: (sample,) 0..1.
        contrast: False where every pixel of every sample was the same.
        novelty: (sample,) distance from the training images, None where the model cannot tell.
        drawn: (sample, draw, finding) probabilities with dropout, None where not drawn.
        presentation: (sample, 4) by how much an image seems turned or inverted; None where the model cannot tell.
    """

    probabilities: npt.NDArray[np.float64]
    severity: npt.NDArray[np.float64]
    contrast: bool
    novelty: npt.NDArray[np.float64] | None = None
    drawn: npt.NDArray[np.float64] | None = None
    presentation: npt.NDArray[np.float64] | None = None


class Evidence(NamedTuple):
    """Where the scores of a study come from.

    Attributes:
        attribution: What each known clinical value did; None where none is known.
        shares: What image and record did, a share a finding; empty where the model cannot tell.
        similar: The nearest training cases; empty where the model keeps none.
    """

    attribution: Attribution | None = None
    shares: Sequence[ModalityShare] = ()
    similar: Sequence[SimilarCase] = ()


NO_EVIDENCE = Evidence()


def assemble(
    image: MedicalImage,
    record: ClinicalRecord,
    card: Card,
    settings: InferenceConfig,
    scores: Scores,
    slices: Sequence[int],
    maps: HeatMaps | None,
    provenance: Provenance,
    evidence: Evidence = NO_EVIDENCE,
) -> Prediction:
    """Put the scores of one study into words and decisions.

    Args:
        image: What was looked at.
        record: What the network knew of the patient.
        card: Card of the model.
        settings: Which parts are wanted, and the confidence threshold.
        scores: What the network said.
        slices: Image slice of each sample; empty for a 3D network.
        maps: Heat maps, None where not wanted.
        provenance: What made the scores.
        evidence: Where the scores come from.
    """
    study = volume_scores(scores, card, slices)
    probabilities = study.probabilities
    between = [None] * len(card.labels) if study.drawn is None else intervals(study.drawn)
    thresholds = card.operating_points.get(settings.operating_point, card.thresholds)
    findings = [
        _finding(label, probability, thresholds[label], card.calibration is not None, interval)
        for label, probability, interval in zip(card.labels, probabilities.tolist(), between, strict=True)
    ]
    limit = card.novelty
    signs = Signs(
        contrast=scores.contrast,
        doubts=_doubts(image, scores, slices),
        novelty=None if limit is None or study.novelty is None else study.novelty / limit.threshold,
        sets=prediction_sets(probabilities, card),
        uncertainty=None if study.drawn is None else uncertainty(study.drawn, card.epistemic),
        missing=record.missing,
    )
    reasons = deferral_reasons(image, card, findings, signs, settings.confidence_threshold)
    top = max(findings, key=lambda finding: finding.probability)
    prediction = Prediction(
        input=image.source,
        image=_summary(image, [*image.warnings, *refused_prefill(image.prefill)]),
        findings=findings,
        severity=_severity(card, settings, top, study.severity),
        certainty=Certainty(
            label=top.label,
            deferred=bool(reasons),
            reasons=reasons,
            novelty=signs.novelty,
            sets=signs.sets,
            uncertainty=signs.uncertainty,
        ),
        clinical=_clinical_use(record, card, evidence.attribution),
        modalities=list(evidence.shares),
        similar_cases=list(evidence.similar),
        heat_maps=[] if maps is None else [heat_map_summary(image, maps, label) for label in card.labels],
        slices=_slice_scores(card, scores, slices) if len(slices) > 1 else [],
        volume_rule=study.rule,
        provenance=provenance,
    )
    return prediction if maps is None else prediction.with_maps(maps)


def _doubts(image: MedicalImage, scores: Scores, slices: Sequence[int]) -> list[Doubt]:
    """What speaks against the image itself; nothing more is asked of a blank one."""
    if not scores.contrast:
        return []
    doubts = image_doubts(image, slices or None)
    if scores.presentation is not None:
        doubts += presentation_doubts(image, np.median(scores.presentation, axis=0).tolist())
    return doubts


class StudyScores(NamedTuple):
    """Scores of a whole study.

    Attributes:
        probabilities: (finding,).
        severity: 0..1.
        novelty: Distance from the training images, that of half of the samples; None where the model cannot tell.
        run: The samples that it is the mean of.
        drawn: (draw, finding) the same mean for each dropout sample; None where not drawn.
        rule: How the slices of a volume became one result, in words; None for a single sample.
    """

    probabilities: npt.NDArray[np.float64]
    severity: float
    novelty: float | None
    run: slice
    drawn: npt.NDArray[np.float64] | None
    rule: str | None


def volume_scores(scores: Scores, card: Card, slices: Sequence[int]) -> StudyScores:
    """Scores of the whole study from those of its samples.

    One slice says nothing of a volume and the highest of many is mostly noise, so neighbours are averaged: the run of
    `card.volume_slices` neighbouring slices that looks least normal stands for the study.
    """
    count = len(scores.probabilities)
    width = min(card.volume_slices, count)
    kernel = np.ones(width) / width
    averaged = np.stack([np.convolve(column, kernel, mode="valid") for column in scores.probabilities.T], axis=1)
    if "normal" in card.labels:
        start = int(averaged[:, card.labels.index("normal")].argmin())
        chosen = "with the lowest probability of normal"
    else:
        start = int(averaged.max(axis=1).argmax())
        chosen = "with the highest probability of any finding"
    run = slice(start, start + width)
    return StudyScores(
        scores.probabilities[0] if count == 1 else averaged[start],
        float(scores.severity[run].mean()),
        None if scores.novelty is None else float(np.median(scores.novelty)),
        run,
        None if scores.drawn is None else scores.drawn[run].mean(axis=0),
        None if count == 1 else _rule(width, chosen, slices, start),
    )


def _rule(width: int, chosen: str, slices: Sequence[int], start: int) -> str:
    run = f"slice {slices[start]}" if width == 1 else f"slices {slices[start]} to {slices[start + width - 1]}"
    return f"Mean over the {width} neighboring slices {chosen}: {run} of {len(slices)} looked at."


def _finding(
    label: str, probability: float, threshold: Threshold, calibrated: bool, interval: tuple[float, float] | None
) -> Finding:
    unsure = abs(probability - threshold.value) < threshold.margin
    return Finding(
        label=label,
        probability=min(max(probability, 0.0), 1.0),
        threshold=threshold.value,
        decision="unsure" if unsure else "present" if probability >= threshold.value else "absent",
        calibrated=calibrated,
        operating_point=threshold.operating_point,
        interval=interval,
    )


def _severity(card: Card, settings: InferenceConfig, top: Finding, score: float) -> Severity:
    if not settings.severity_scoring:
        return Severity(applicable=False, reason="Severity scoring is switched off.")
    scale = card.severity
    if scale is None:
        return Severity(applicable=False, reason="This model has learned no severity.")
    if top.label not in scale.findings:
        return Severity(
            applicable=False,
            reason=f"Severity was learned for {' and '.join(scale.findings)}, not for {top.label}.",
        )
    grade = [grade.name for grade in scale.grades if score >= grade.start][-1]
    return Severity(applicable=True, score=score, grade=grade, scale=scale.name, value=score * scale.maximum)


def _clinical_use(record: ClinicalRecord, card: Card, attribution: Attribution | None) -> ClinicalUse:
    unlearned = [name for name in record.known if card.clinical[name].known_fraction == 0]
    return ClinicalUse(
        used={name: value for name, value in record.known.items() if name not in unlearned},
        missing=record.missing,
        unlearned=unlearned,
        prefilled=[name for name in record.prefilled if name not in unlearned],
        contributions=[] if attribution is None else _contributions(card, attribution),
    )


def _contributions(card: Card, attribution: Attribution) -> list[ClinicalContribution]:
    fields = [list(FIELDS)[position] for position in attribution.fields]
    return [
        ClinicalContribution(finding=label, unknown=unknown, fields=dict(zip(fields, added, strict=True)))
        for label, unknown, added in zip(
            card.labels, attribution.unknown.tolist(), attribution.added.T.tolist(), strict=True
        )
    ]


def _summary(image: MedicalImage, warnings: list[str]) -> ImageSummary:
    return ImageSummary(
        shape=image.shape,
        spacing=image.spacing,
        origin=image.origin,
        direction=image.direction,
        modality=image.modality,
        body_part=image.body_part,
        view=image.view,
        laterality=image.laterality,
        color=image.color,
        inverted=image.inverted,
        identifiers=dict(image.identifiers),
        reader=image.reader,
        warnings=warnings,
    )


def heat_map_summary(image: MedicalImage, maps: HeatMaps, label: str) -> HeatMapSummary:
    """Where the map of a finding is hottest, on the image that it lies over."""
    peak, index = maps.peak(label)
    return HeatMapSummary(
        label=label,
        peak=peak,
        relative_peak=peak / maps.scale(label),
        index=index,
        position=None if image.spacing is None else image.to_physical(index),
    )


def _slice_scores(card: Card, scores: Scores, slices: Sequence[int]) -> list[SliceScore]:
    return [
        SliceScore(index=index, probabilities=dict(zip(card.labels, row, strict=True)))
        for index, row in zip(slices, scores.probabilities.tolist(), strict=True)
    ]
