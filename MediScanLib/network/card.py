"""`Card`: everything that is known of a trained network beside its weights, as JSON.

In the spirit of model cards (Mitchell et al., FAT* 2019): what it was trained on, under which licence, for what it is
meant, how well it did and where. Thresholds and calibration live here and nowhere else.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

from ..config import ModelConfig
from ..study.fields import FIELDS

CARD_SCHEMA_VERSION: Literal["1.1"] = "1.1"
"""1.1 added `conformal`, `epistemic`, `confidence`, `operating_points` and `needed_fields`; 1.0 has none of them."""

_LONGEST_SIDE = 2048
_MOST_CELLS = 1 << 24  # 256 x 256 x 256; a card from outside must not ask for more memory than machines have

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class InputSpec(_Part):
    """What the image encoder takes.

    Attributes:
        size: Network input, (rows, columns) or (slices, rows, columns) in pixels.
        percentiles: Lower and upper percentile of the resized image that become 0 and 1.
        windows: (center, width) by modality that is applied before, such as {"CT": (-600, 1500)} in HU.
        mean: Subtracted after scaling to 0..1.
        std: Divided by after subtracting `mean`.
        modalities: DICOM modality codes of the training images.
        body_parts: Body parts of the training images.
    """

    size: tuple[int, ...]
    percentiles: tuple[float, float] = (0.5, 99.5)
    windows: dict[str, tuple[float, float]] = {}
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)
    modalities: list[str] = []
    body_parts: list[str] = []

    @model_validator(mode="after")
    def _usable(self) -> InputSpec:
        if not all(1 <= side <= _LONGEST_SIDE for side in self.size) or prod(self.size) > _MOST_CELLS:
            raise ValueError(f"size {self.size} is beyond sides of {_LONGEST_SIDE} or {_MOST_CELLS} cells")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles {self.percentiles} do not rise between 0 and 100")
        if any(width <= 0 for _, width in self.windows.values()):
            raise ValueError(f"windows {self.windows} need widths above 0")
        return self


class FieldStatistics(_Part):
    """Standardization of one clinical field, from the training split alone.

    Attributes:
        mean: Mean of the known values.
        std: Their standard deviation.
        known_fraction: Share of training studies in which the field was known.
    """

    mean: float
    std: float = Field(gt=0)
    known_fraction: float = Field(ge=0, le=1)


class Calibration(_Part):
    """Vector scaling (Guo et al., ICML 2017): softmax(scale * logits + shift), one scale and shift a finding.

    Attributes:
        scale: Factors of the logits, in the order of the card's labels; all the same for a single temperature.
        shift: What is added to them.
        fitted_on: Which data it was fitted on.
    """

    scale: list[float] = Field(min_length=1)
    shift: list[float] = Field(min_length=1)
    fitted_on: str


class Threshold(_Part):
    """Operating point of one finding.

    Attributes:
        value: Present from this probability on.
        margin: Unsure where the probability is nearer to `value` than this.
        operating_point: What it stands for, with the data it was chosen on.
    """

    value: float = Field(ge=0, le=1)
    margin: float = Field(default=0.0, ge=0, le=0.5)
    operating_point: str


class Limit(_Part):
    """Up to where, or from where on, a study is accepted.

    Attributes:
        threshold: The last value that is accepted.
        accepted: Share of the studies it was chosen on that are.
        fitted_on: Which these were.
    """

    threshold: float = Field(gt=0)
    accepted: float = Field(gt=0, le=1)
    fitted_on: str


class ConformalLevel(_Part):
    """Limits of the probabilities that make prediction sets of one coverage, whichever the true finding is.

    Class-conditional split conformal prediction (Vovk, ACML 2012).

    Attributes:
        coverage: Nominal share of the studies of each finding whose set holds it.
        thresholds: A finding is in the set from this calibrated probability on, in the order of the card's labels; 0
            where too few studies were there to choose one.
        fitted_on: Which they were.
    """

    coverage: float = Field(gt=0, lt=1)
    thresholds: list[Annotated[float, Field(ge=0, le=1)]]
    fitted_on: str


class Grade(_Part):
    """A word for severity scores from `start` (0..1) on."""

    name: str
    start: float = Field(ge=0, le=1)


class SeverityScale(_Part):
    """What the severity head predicts.

    Attributes:
        name: Scale, such as "Brixia".
        maximum: Its largest value; the head predicts the fraction of it.
        grades: Words by rising score; the first starts at 0.
        findings: Labels for which severity was learned.
    """

    name: str
    maximum: float = Field(gt=0)
    grades: list[Grade]
    findings: list[str]


class DataSource(_Part):
    """One data set that the network was trained on."""

    name: str
    licence: str
    studies: int = Field(ge=0)
    caution: str = ""


class Metric(_Part):
    """One measured figure with its interval.

    Attributes:
        name: Such as "AUC-ROC".
        task: Such as "pneumonia vs normal".
        source: Data set within which it was measured, or "across sources (confounded)".
        split: Such as "test", "5-fold".
        studies: How many.
        value: Point estimate.
        low: Lower end of the 95 % interval.
        high: Upper end.
    """

    name: str
    task: str
    source: str
    split: str
    studies: int
    value: float
    low: float | None = None
    high: float | None = None


class Card(_Part):
    """The card of a bundle; see the parts for units.

    Attributes:
        name: Bundle name, lower case.
        version: Version of the bundle, independent of the software's.
        title: One line for people.
        description: What it is for and what not.
        labels: Findings in the order of the logits.
        network: Architecture.
        input: Image input.
        clinical: Standardization by clinical field.
        calibration: None where probabilities are uncalibrated.
        thresholds: Operating point by label, as many sick called sick as healthy called healthy.
        operating_points: Others by name, each by label: "sensitive" and "specific".
        conformal: Limits of prediction sets, by rising coverage; empty where none were fitted.
        confidence: Lowest probability of the likeliest finding that is accepted; None where none was chosen.
        epistemic: Largest epistemic uncertainty that is accepted; None where none was chosen.
        needed_fields: Clinical values without which the network did worse on held-out studies.
        novelty: Largest distance from the training images that is accepted, see `network.novelty`; None where the
            bundle cannot tell.
        severity: None where no severity was learned.
        heat_map_scales: Raw heat-map value drawn as 1.0, by label.
        volume_slices: Neighbouring slices over which a 2D network's scores are averaged for a volume.
        data: What it was trained on.
        weights_licence: Licence of the weights, apart from the code's.
        metrics: Measured figures.
        cautions: What a user of the figures must know.
        recipe: How it was trained: settings, augmentation, epochs, versions of the libraries.
        files: SHA-256 by file name.
    """

    schema_version: Literal["1.0", "1.1"] = CARD_SCHEMA_VERSION
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=80)]
    version: str
    title: str
    description: str
    labels: list[str] = Field(min_length=1)
    network: ModelConfig
    input: InputSpec
    clinical: dict[str, FieldStatistics]
    calibration: Calibration | None = None
    thresholds: dict[str, Threshold]
    operating_points: dict[str, dict[str, Threshold]] = {}
    conformal: list[ConformalLevel] = []
    confidence: Limit | None = None
    epistemic: Limit | None = None
    needed_fields: list[str] = []
    novelty: Limit | None = None
    severity: SeverityScale | None = None
    heat_map_scales: dict[str, Annotated[float, Field(gt=0)]]
    volume_slices: int = Field(default=3, ge=1)
    data: list[DataSource] = []
    weights_licence: str
    metrics: list[Metric] = []
    cautions: list[str] = []
    recipe: dict[str, JsonValue] = {}
    files: dict[FileName, Sha256] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Card:
        if len(self.labels) != self.network.num_classes or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"labels {self.labels} are not {self.network.num_classes} different names")
        if set(self.thresholds) != set(self.labels):
            raise ValueError(f"thresholds are for {sorted(self.thresholds)}, labels are {sorted(self.labels)}")
        for name, points in self.operating_points.items():
            if set(points) != set(self.labels):
                raise ValueError(f"operating point {name} is for {sorted(points)}, labels are {sorted(self.labels)}")
        coverages = [level.coverage for level in self.conformal]
        if coverages != sorted(set(coverages)) or any(len(c.thresholds) != len(self.labels) for c in self.conformal):
            raise ValueError("conformal must have rising coverages and one threshold for each label")
        if not set(self.needed_fields) <= set(FIELDS):
            raise ValueError(f"needed_fields {self.needed_fields} are not all among {list(FIELDS)}")
        if set(self.heat_map_scales) != set(self.labels):
            raise ValueError(
                f"heat_map_scales are for {sorted(self.heat_map_scales)}, labels are {sorted(self.labels)}"
            )
        if list(self.clinical) != list(FIELDS) or self.network.clinical_dim != len(FIELDS):
            raise ValueError(f"clinical must name {list(FIELDS)} in this order, got {list(self.clinical)}")
        if len(self.input.size) != self.network.spatial_dims:
            raise ValueError(f"input size {self.input.size} does not fit {self.network.spatial_dims} dimensions")
        calibration = self.calibration
        if calibration and not len(calibration.scale) == len(calibration.shift) == len(self.labels):
            raise ValueError("calibration must have one scale and one shift for each label")
        if self.severity is not None:
            if not set(self.severity.findings) <= set(self.labels):
                raise ValueError(f"severity findings {self.severity.findings} are not all labels")
            starts = [grade.start for grade in self.severity.grades]
            if not starts or starts[0] != 0 or starts != sorted(starts):
                raise ValueError(f"severity grades must start at 0 and rise, got {starts}")
        return self
