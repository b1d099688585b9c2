"""What tells how far a prediction can be trusted, in words."""

from __future__ import annotations

from MediScanLib.prediction.result import (
    Certainty,
    ModalityShare,
    PredictionSet,
    SimilarCase,
    Uncertainty,
)
from MediScanLib.prediction.sentences import (
    cases_sentence,
    set_sentence,
    share_sentence,
    trust_sentences,
    uncertainty_sentence,
)
from MediScanLib.study.phantom import make_phantom
from toys import make_predictor


def _certainty(*labels: str, uncertainty: Uncertainty | None = None) -> Certainty:
    sets = [PredictionSet(coverage=0.8, labels=[]), PredictionSet(coverage=0.9, labels=list(labels))]
    return Certainty(label="covid", deferred=False, reasons=[], sets=sets, uncertainty=uncertainty)


def test_sets_in_words() -> None:
    assert set_sentence(_certainty("covid")) == "At 90% coverage only covid remains."
    assert set_sentence(_certainty("covid", "normal")) == "At 90% coverage it may be covid or normal."
    assert set_sentence(_certainty("a", "b", "c")) == "At 90% coverage it may be a, b or c."
    assert "no finding remains" in set_sentence(_certainty())
    assert set_sentence(Certainty(label="covid", deferred=False, reasons=[])) == ""


def test_uncertainty_in_words() -> None:
    limited = Uncertainty(samples=30, total=0.4, epistemic=0.02, relative=0.5)
    assert "0.50 times the largest that is accepted" in uncertainty_sentence(_certainty("covid", uncertainty=limited))
    unlimited = Uncertainty(samples=30, total=0.4, epistemic=0.02)
    assert "accepted" not in uncertainty_sentence(_certainty("covid", uncertainty=unlimited))
    assert uncertainty_sentence(_certainty("covid")) == ""


def test_shares_in_words() -> None:
    share = ModalityShare(finding="covid", neither=-2, image=3, record=-1)
    assert share_sentence(share) == (
        "Of what moved covid, 75% came from the image (for it) and 25% from the clinical values (against it)."
    )
    assert "Neither" in share_sentence(ModalityShare(finding="covid", neither=-2, image=0, record=0))
    assert share_sentence(None) == ""


def test_cases_in_words() -> None:
    cases = [SimilarCase(label=label, source="nih", distance=0.2, licence="") for label in ("a", "b", "a")]
    assert cases_sentence(cases) == "The 3 nearest training cases: 2 a, 1 b."


def test_a_model_that_knows_little_says_little() -> None:
    prediction = make_predictor()(make_phantom())
    said = trust_sentences(prediction)
    assert not any("coverage" in sentence or "nearest" in sentence for sentence in said)
    assert all(said)
