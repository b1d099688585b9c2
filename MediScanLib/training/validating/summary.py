"""All figures of a validation in one place, and as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields

from ...notice import RESEARCH_USE_NOTICE
from ..evaluating.localization import Localization
from ..evaluating.summary import plain, source_cautions
from .agreement import Agreement
from .explaining import PERTURBATIONS, Failure
from .quality import Difference, MethodScores
from .stability import Robustness, Shuffled
from .stress_figures import StressPoint

SCHEMA_VERSION = "1.0"

CAUTIONS = (
    "A map that lies on the marks need not be why the model decided, and a map that the model leans on need not lie "
    "on the lesion: the first is told by the marks, the second by insertion and deletion.",
    "Hidden or damaged pixels make images that the model was not trained on. Insertion, deletion and the stress "
    "tests measure what the model does with them, and not what a patient has.",
    "Agreement between methods is no proof that they are right: methods that read the same layer agree by design.",
    "No correction was made for the number of comparisons: with many methods and conditions some intervals exclude "
    "zero by chance. An interval without width tells how few cases there are, not how sure the figure is.",
)


@dataclass(frozen=True)
class ModelFacts:
    """A model as the report names it.

    Attributes:
        name: Unique in the report.
        title: Of its card.
        sha256: Of the weights.
        licence: Of the weights.
        cautions: What its card warns of.
        same_manifest: Whether its card names this manifest as the one that it was trained on; None where it names
            none. Only then is it known that the split was held out.
    """

    name: str
    title: str
    sha256: str
    licence: str
    cautions: Sequence[str]
    same_manifest: bool | None


@dataclass(frozen=True)
class Subject:
    """What was validated, and how.

    Attributes:
        models: Models.
        methods: Methods, the reference first.
        checks: Checks that were made.
        manifest: File name of the manifest.
        manifest_sha256: Of its content.
        split: Studies that were asked about.
        marks: File names of the readers' marks.
        cases: Cases whose maps were looked at, by group.
        tuning: Cases of val that the IoU thresholds were tuned on.
        stressed: Studies in the stress tests, by source.
        scale_meanings: What 1 on a map's scale means, by method.
        steps: Steps of insertion and deletion.
        random_orders: Random orders they were compared with.
        resamples: Of the bootstrap.
        seed: Of everything that was drawn.
        seconds: What this run took; pieces of earlier runs come on top.
        resumed: Pieces that an earlier run had finished.
    """

    models: Sequence[ModelFacts]
    methods: Sequence[str]
    checks: Sequence[str]
    manifest: str
    manifest_sha256: str
    split: str
    marks: Sequence[str]
    cases: dict[str, int]
    tuning: int
    stressed: dict[str, int]
    scale_meanings: dict[str, str]
    steps: int
    random_orders: int
    resamples: int
    seed: int
    seconds: float = 0.0
    resumed: int = 0


@dataclass(frozen=True)
class Summary:
    """Everything that was measured; see the parts."""

    subject: Subject
    methods: Sequence[MethodScores]
    readers: Sequence[Localization]
    differences: Sequence[Difference]
    agreement: Sequence[Agreement]
    robustness: Sequence[Robustness]
    shuffled: Sequence[Shuffled]
    stress: Sequence[StressPoint]
    failures: Sequence[Failure]

    @property
    def cautions(self) -> list[str]:
        """What must be said beside the figures."""
        found = list(CAUTIONS)
        if self.stress:
            found.append("Tasks are scored within their source: comparing classes across sources measures the source.")
        sources = {*self.subject.stressed, *(group.removesuffix(" boxes") for group in self.subject.cases)}
        found += source_cautions(sources)
        if any("lesion masks" in group for group in self.subject.cases):
            found.append(
                "Images with lesion masks are copies of images of the manifest: those whose copy is in train were "
                "left out. Of those without a copy it is not known whether a model has seen them elsewhere."
            )
        for model in self.subject.models:
            if model.same_manifest is False:
                found.append(
                    f"{model.name} was trained on another manifest: whether it has learned from images of this split "
                    "is not known."
                )
            elif model.same_manifest is None:
                found.append(f"The card of {model.name} does not say what it was trained on.")
        return found


def to_json(summary: Summary) -> str:
    """The figures as JSON; what is undefined is null."""
    content = {
        "schema_version": SCHEMA_VERSION,
        "notice": RESEARCH_USE_NOTICE,
        "cautions": summary.cautions,
        "perturbations": PERTURBATIONS,
        **{field.name: plain(getattr(summary, field.name)) for field in fields(summary)},
    }
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
