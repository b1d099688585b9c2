"""All figures of an evaluation in one place, and as JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import sklearn

from ...notice import RESEARCH_USE_NOTICE
from .ablation import Ablation, ablation
from .across import CONFOUNDED, AcrossSources, across_sources
from .answers import Answers
from .coverage import SetCoverage, set_coverage
from .localization import Localization
from .randomization import Randomization
from .selective import Selective, selective
from .severity import SeverityAgreement, severity_agreement
from .shortcuts import Learned, Shortcut, shortcuts
from .subgroups import Subgroup, subgroups
from .within import MeanOverSources, WithinSource, by_disease, overall, within_source

SCHEMA_VERSION = "1.0"

CAUTIONS = (
    "Each disease is scored within its source. Comparing classes across sources mostly measures the source; those "
    "figures stand apart and are named as confounded.",
    "Intervals are 95 % percentile bootstrap intervals over patients. Where every study was right or every one wrong "
    "the interval has no width; that tells how few studies there are, not how sure the figure is. Calibration errors "
    "are too large where studies are few, and larger still in resamples: their intervals lie high.",
    "Thresholds, calibration and the thresholds of heat maps are chosen on val: figures on val are too good.",
    "Labels of nih are mined from reports; readers who looked again called a fifth of its pneumonias normal.",
    "iqothnccd has no case numbers, so that neighboring slices may stand in different splits: its figures are too "
    "good.",
    "In bone_eeeh the fractured legs are cropped more tightly, and the size of the file alone tells much.",
    "Clinical values are sparse: age and sex are common, laboratory values rare.",
)

_SOURCES_OF_CAUTIONS = {3: "nih", 4: "iqothnccd", 5: "bone_eeeh"}


@dataclass(frozen=True)
class Subject:
    """What was evaluated.

    Attributes:
        model: Name of the model, or of the models of a cross-validation.
        version: Its version.
        sha256: Of the weights.
        manifest: File name of the manifest.
        manifest_sha256: Of its content.
        split: Which studies.
        hidden_image: How the image was hidden for "clinical only".
        resamples: Of the bootstrap.
        seconds: What it took.
    """

    model: str
    version: str
    sha256: str
    manifest: str
    manifest_sha256: str
    split: str
    hidden_image: str
    resamples: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Summary:
    """Everything that was measured; see the parts."""

    subject: Subject
    by_disease: Sequence[MeanOverSources]
    within_source: Sequence[WithinSource]
    overall: MeanOverSources
    across: AcrossSources
    ablation: Sequence[Ablation]
    shortcuts: Sequence[Shortcut]
    severity: Sequence[SeverityAgreement]
    selective: Sequence[Selective]
    subgroups: Sequence[Subgroup]
    sets: Sequence[SetCoverage] = ()
    localization: Sequence[Localization] = ()
    randomization: Sequence[Randomization] = ()

    @property
    def cautions(self) -> list[str]:
        """What must be said beside the figures, as far as it concerns these sources."""
        sources = {row.source for row in self.within_source}
        return [text for i, text in enumerate(CAUTIONS) if _SOURCES_OF_CAUTIONS.get(i) in (None, *sources)]


def source_cautions(sources: Collection[str]) -> list[str]:
    """CAUTIONS that hold for single data sets, of those among the sources."""
    return [CAUTIONS[i] for i, source in _SOURCES_OF_CAUTIONS.items() if source in sources]


def summarize(
    answers: Answers,
    subject: Subject,
    learned: Sequence[Learned],
    localization: Sequence[Localization] = (),
    randomization: Sequence[Randomization] = (),
) -> Summary:
    """All figures of a table of answers, from one model on one split or from the folds of a cross-validation.

    Args:
        answers: What the model said.
        subject: What was evaluated.
        learned: What each model was trained on, for the shortcuts.
        localization: See `localization`; made from heat maps, not from the table.
        randomization: See `randomization`.
    """
    rounds = subject.resamples
    # the functions of scikit-learn are called a hundred thousand times on what was checked before
    with sklearn.config_context(assume_finite=True, skip_parameter_validation=True):
        return Summary(
            subject=subject,
            by_disease=by_disease(answers, rounds),
            within_source=within_source(answers, rounds),
            overall=overall(answers, rounds),
            across=across_sources(answers, rounds),
            ablation=ablation(answers, rounds),
            shortcuts=shortcuts(answers, learned, rounds),
            severity=severity_agreement(answers, rounds),
            selective=selective(answers, rounds),
            sets=set_coverage(answers, rounds),
            subgroups=subgroups(answers, rounds),
            localization=localization,
            randomization=randomization,
        )


def to_json(summary: Summary) -> str:
    """The figures as JSON; what is undefined is null. Curves stay in the report."""
    text = {
        "schema_version": SCHEMA_VERSION,
        "notice": RESEARCH_USE_NOTICE,
        "cautions": summary.cautions,
        **{
            CONFOUNDED if field.name == "across" else field.name: plain(getattr(summary, field.name))
            for field in dataclasses.fields(summary)
        },
    }
    return json.dumps(text, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def plain(value: object) -> object:
    """Values that JSON knows: dataclasses as objects without their arrays, what is not finite as null."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        # arrays are curves; their figures stand beside them
        return {
            field.name: plain(part)
            for field in dataclasses.fields(value)
            if not isinstance(part := getattr(value, field.name), np.ndarray)
        }
    if isinstance(value, Mapping):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
