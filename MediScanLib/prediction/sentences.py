"""What tells how far a prediction can be trusted, in sentences that every face shows alike."""

from __future__ import annotations

from collections.abc import Sequence

from .result import Certainty, ModalityShare, Prediction, SimilarCase

SHOWN_COVERAGE = 0.9
"""Of the prediction set that is put into words; the others are in the JSON."""


def trust_sentences(prediction: Prediction) -> list[str]:
    """All that can be said of one prediction, one sentence an entry; empty where the model says nothing of it."""
    certainty = prediction.certainty
    said = [
        set_sentence(certainty),
        uncertainty_sentence(certainty),
        share_sentence(next((part for part in prediction.modalities if part.finding == certainty.label), None)),
        cases_sentence(prediction.similar_cases),
        *(verdict.verdict for verdict in prediction.faithfulness),
    ]
    return [sentence for sentence in said if sentence]


def set_sentence(certainty: Certainty) -> str:
    """Which findings cannot be excluded; "" where the model has no sets."""
    if not certainty.sets:
        return ""
    chosen = min(certainty.sets, key=lambda one: abs(one.coverage - SHOWN_COVERAGE))
    if not chosen.labels:
        return f"At {chosen.coverage:.0%} coverage no finding remains: the image is like none of those that had one."
    if len(chosen.labels) == 1:
        return f"At {chosen.coverage:.0%} coverage only {chosen.labels[0]} remains."
    return f"At {chosen.coverage:.0%} coverage it may be {either(chosen.labels)}."


def uncertainty_sentence(certainty: Certainty) -> str:
    """How uncertain, and how much of it is the model's own; "" where that was not drawn."""
    scatter = certainty.uncertainty
    if scatter is None:
        return ""
    limit = "" if scatter.relative is None else f", {scatter.relative:.2f} times the largest that is accepted"
    return (
        f"Uncertainty {scatter.total:.2f} of 1; of that {scatter.epistemic:.3f} is the model disagreeing with itself"
        f"{limit}."
    )


def share_sentence(share: ModalityShare | None) -> str:
    """How much of a finding came from the image and how much from the clinical values; "" where that is unknown."""
    if share is None:
        return ""
    whole = abs(share.image) + abs(share.record)
    if whole == 0:
        return f"Neither the image nor the clinical values moved {share.finding}."
    return (
        f"Of what moved {share.finding}, {abs(share.image) / whole:.0%} came from the image ({_way(share.image)}) and "
        f"{abs(share.record) / whole:.0%} from the clinical values ({_way(share.record)})."
    )


def cases_sentence(cases: Sequence[SimilarCase]) -> str:
    """What the nearest training cases are labelled with; "" where the model keeps none."""
    if not cases:
        return ""
    labels = [case.label for case in cases]
    counts = [f"{labels.count(label)} {label}" for label in dict.fromkeys(labels)]
    return f"The {len(cases)} nearest training cases: {', '.join(counts)}."


def either(labels: Sequence[str]) -> str:
    """Such as "a, b or c"."""
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} or {labels[-1]}"


def _way(log_odds: float) -> str:
    return "for it" if log_odds > 0 else "against it" if log_odds < 0 else "neither way"
