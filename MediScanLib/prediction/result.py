"""`Prediction`: the one JSON contract that every face of MediScan reads and writes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

from ..notice import RESEARCH_USE_NOTICE
from .heatmaps import HeatMaps

SCHEMA_VERSION: Literal["1.1"] = "1.1"
"""1.1 added what tells how far a prediction can be trusted; all of that may be absent, so that 1.0 still loads."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageSummary(_Part):
    """What was looked at. Lengths in mm, LPS; see `MedicalImage`."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float] | None
    origin: tuple[float, float, float]
    direction: tuple[float, ...]
    modality: str | None
    body_part: str | None
    view: str | None
    laterality: str | None
    color: bool
    inverted: bool
    identifiers: dict[str, str]
    reader: str
    warnings: list[str]


class Finding(_Part):
    """One disease class.

    Attributes:
        label: Name as in the bundle's card.
        probability: 0..1; calibrated if `calibrated`.
        threshold: Operating point of the bundle: "present" from here on.
        decision: "unsure" within the bundle's margin around the threshold.
        calibrated: Whether the probability was calibrated on held-out data.
        operating_point: What the threshold stands for, such as "sensitivity 0.90, specificity 0.71 on val".
        interval: 5th and 95th percentile of the probability over dropout samples of the head; None where not drawn.
    """

    label: str
    probability: float = Field(ge=0, le=1)
    threshold: float = Field(ge=0, le=1)
    decision: Literal["present", "absent", "unsure"]
    calibrated: bool
    operating_point: str | None = None
    interval: tuple[float, float] | None = None


class Severity(_Part):
    """How severe, where that was learned.

    Attributes:
        applicable: False where the bundle has no severity for what was found; then `reason` says why.
        score: 0..1, the fraction of the scale's maximum.
        grade: Word for the score, cut points in the bundle.
        scale: What the score is a fraction of, such as "Brixia 0-18".
        value: Score on that scale.
    """

    applicable: bool
    score: float | None = Field(default=None, ge=0, le=1)
    grade: str | None = None
    scale: str | None = None
    value: float | None = None
    reason: str | None = None


class SliceScore(_Part):
    """Probabilities of one slice of a volume looked at by a 2D network."""

    index: int
    probabilities: dict[str, float]


class HeatMapSummary(_Part):
    """Where a finding's heat map is hottest.

    Attributes:
        label: Finding.
        peak: Raw value at the hottest place.
        relative_peak: `peak` divided by the scale, what colors call 1.
        index: (slice, row, column) in the image.
        position: The same place, LPS mm; None where the image has no spacing.
        file: Where a face stored the picture or the map.
        method: How the map was made, one of `explanations.METHODS`.
        against: The finding that the map tells it from; None where it tells it from everything.
        scale_meaning: What 1 on the scale stands for.
    """

    label: str
    peak: float
    relative_peak: float
    index: tuple[int, int, int]
    position: tuple[float, float, float] | None
    file: str | None = None
    method: str = "gradcam"
    against: str | None = None
    scale_meaning: str = "as hot as this model's maps of the finding usually get"


class ClinicalContribution(_Part):
    """What the clinical values did to one finding.

    The log-odds log(p / (1 - p)) of its probability p are `unknown` plus all of `fields`.

    Attributes:
        finding: Label.
        unknown: Log-odds of this image with every clinical value unknown.
        fields: Log-odds that each used value adds, against not knowing it: its Shapley value, the mean over all orders
            in which the values could have become known.
    """

    finding: str
    unknown: float
    fields: dict[str, float]


class ClinicalUse(_Part):
    """Which clinical values the network saw.

    Attributes:
        used: Values by field.
        missing: Fields that were unknown.
        unlearned: Values that were given but not used, because no training study had such a value.
        prefilled: The part of `used` that came from the image header and not from the user.
        contributions: What they did to each finding; empty where none was used.
    """

    used: dict[str, float | str]
    missing: list[str]
    unlearned: list[str] = []
    prefilled: list[str]
    contributions: list[ClinicalContribution] = []


class ModalityShare(_Part):
    """How much of one finding came from the image, and how much from the clinical values.

    The log-odds of its probability are `neither` + `image` + `record`: Shapley values of two players.

    Attributes:
        finding: Label.
        neither: Log-odds with the image hidden and every clinical value unknown.
        image: What the image adds.
        record: What the clinical values add.
    """

    finding: str
    neither: float
    image: float
    record: float


class SimilarCase(_Part):
    """A training case that the network sees as like this one.

    Attributes:
        label: What it is labelled with.
        source: Data set.
        distance: In the network's features, as a multiple of the largest distance that is accepted as known.
        licence: Of the image.
        view: Such as "PA".
        age_years: Of the patient, rounded to tens.
        sex: Of the patient.
        image: The file's public name in its data set; None where its licence does not let it be shown.
    """

    label: str
    source: str
    distance: float = Field(ge=0)
    licence: str
    view: str | None = None
    age_years: int | None = None
    sex: str | None = None
    image: str | None = None


class Faithfulness(_Part):
    """Whether the places that a heat map names are those that the network leans on, in this very image.

    Petsiuk et al., "RISE", BMVC 2018: the hottest places are hidden first (deletion) or shown first (insertion), and
    the probability is averaged on the way.

    Attributes:
        finding: Label.
        method: How the map was made, one of `explanations.METHODS`.
        deletion: Mean probability while the hottest places go first: low is good.
        insertion: Mean probability while the hottest places come first: high is good.
        random_deletion: The same in random orders, mean.
        random_insertion: The same in random orders, mean.
        better_than_random: Whether the map is better than nearly all random orders.
        verdict: In one line.
    """

    finding: str
    method: str
    deletion: float
    insertion: float
    random_deletion: float
    random_insertion: float
    better_than_random: bool
    verdict: str


class PredictionSet(_Part):
    """Findings that hold the true one in the stated share of cases, whichever it is.

    Class-conditional conformal prediction (Vovk, ACML 2012).

    Attributes:
        coverage: Nominal share, 0..1.
        labels: Findings that cannot be excluded at that coverage; the likeliest first, possibly none.
    """

    coverage: float = Field(gt=0, lt=1)
    labels: list[str]


class Uncertainty(_Part):
    """How the head's answers scatter when features are dropped (Gal and Ghahramani, ICML 2016).

    Both in shares of the largest possible entropy, 0..1.

    Attributes:
        samples: How many answers were drawn.
        total: Entropy of the mean answer.
        epistemic: The part of it that is disagreement between the answers: their mutual information with the weights
            (Houlsby et al. 2011).
        relative: `epistemic` as a multiple of the largest that is accepted; None where the model has no limit.
    """

    samples: int = Field(ge=2)
    total: float = Field(ge=0)
    epistemic: float = Field(ge=0)
    relative: float | None = Field(default=None, ge=0)


class DeferralReason(_Part):
    """Why the model would rather leave the decision to a human."""

    code: str
    message: str


class Certainty(_Part):
    """How sure, and when the model would rather not say.

    Attributes:
        label: Finding with the highest probability.
        deferred: True where a human should decide without leaning on this prediction.
        reasons: Why, the gravest first.
        novelty: Distance from the training images as a multiple of the largest accepted one; above 1 the study is
            deferred. None where the model cannot tell.
        sets: Findings that cannot be excluded, by rising coverage; empty where the model has no such limits.
        uncertainty: How the head's answers scatter; None where not drawn.
    """

    label: str
    deferred: bool
    reasons: list[DeferralReason]
    novelty: float | None = Field(default=None, ge=0)
    sets: list[PredictionSet] = []
    uncertainty: Uncertainty | None = None


class Provenance(_Part):
    """What made the prediction.

    Attributes:
        model: Bundle name.
        model_version: Bundle version.
        model_sha256: SHA-256 of the weights.
        device: Where it ran, such as "cpu" or "cuda:0".
        runtime: Such as "torch 2.13.0".
        versions: Package versions.
        seconds: Wall time by stage.
        notes: What went otherwise than asked, such as a fall-back from GPU to CPU.
    """

    model: str
    model_version: str
    model_sha256: str
    device: str
    runtime: str
    versions: dict[str, str]
    seconds: dict[str, float]
    notes: list[str] = []


class Prediction(BaseModel):
    """What MediScan says about one study. Heat maps ride along in memory only (`maps`)."""

    model_config = ConfigDict(extra="forbid")

    schema_version: Literal["1.0", "1.1"] = SCHEMA_VERSION
    notice: str = RESEARCH_USE_NOTICE
    input: str
    image: ImageSummary
    findings: list[Finding]
    severity: Severity
    certainty: Certainty
    clinical: ClinicalUse
    modalities: list[ModalityShare] = []
    similar_cases: list[SimilarCase] = []
    heat_maps: list[HeatMapSummary]
    faithfulness: list[Faithfulness] = []
    slices: list[SliceScore] = []
    volume_rule: str | None = None
    provenance: Provenance

    _maps: HeatMaps | None = PrivateAttr(default=None)

    @property
    def maps(self) -> HeatMaps | None:
        """The heat maps themselves; None after a trip through JSON."""
        return self._maps

    def with_maps(self, maps: HeatMaps) -> Prediction:
        """Attach heat maps and return the same object."""
        self._maps = maps
        return self

    @property
    def probabilities(self) -> dict[str, float]:
        """Probability by label."""
        return {finding.label: finding.probability for finding in self.findings}

    @property
    def top(self) -> Finding:
        """The finding with the highest probability."""
        return max(self.findings, key=lambda finding: finding.probability)

    def to_json(self, indent: int | None = None) -> str:
        """JSON text; numbers are finite by construction."""
        return self.model_dump_json(indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> Prediction:
        """Read what `to_json` wrote; raises pydantic.ValidationError on anything else."""
        return cls.model_validate_json(text)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-ready values."""
        return self.model_dump(mode="json")
