"""What to validate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...errors import UsageError
from ...prediction.explanations import METHODS
from ..evaluating.bootstrap import RESAMPLES
from ..regions import NO_MARKS, MarkFiles

FAITHFULNESS, ROBUSTNESS, RANDOMIZATION, STRESS = "faithfulness", "robustness", "randomization", "stress"
CHECKS = (FAITHFULNESS, ROBUSTNESS, RANDOMIZATION, STRESS)
"""Parts that can be left out. Where the maps lie and how they agree is always looked at."""

SPLITS = ("test", "val")
"""Studies of train are never scored."""

UNMARKED_CASES = 40
"""Studies whose maps are compared where readers marked nothing."""


@dataclass(frozen=True)
class Request:
    """What to validate, and how thoroughly.

    Attributes:
        data: Manifest.
        output: Folder for report.html, validation.json, cases.csv and the journal of what is finished.
        split: test or val.
        marks: Readers' boxes and masks; without them nothing is said of where the maps lie.
        methods: Names of METHODS; the others are compared with the first.
        checks: Names of CHECKS.
        cases: Most studies of the split whose maps are looked at, evenly chosen; None for all that readers marked, or
            for UNMARKED_CASES where they marked none.
        stress_studies: Most studies of a source in the stress tests of the model, labels in proportion; 0 for all.
        steps: Steps of insertion and deletion.
        random_orders: Random orders that insertion and deletion are compared with.
        gallery: Most cases in the gallery.
        resamples: Of the bootstrap.
        seed: Of everything that is drawn.
    """

    data: Path
    output: Path
    split: str = "test"
    marks: MarkFiles = NO_MARKS
    methods: tuple[str, ...] = ("gradcam",)
    checks: tuple[str, ...] = CHECKS
    cases: int | None = None
    stress_studies: int = 60
    steps: int = 10
    random_orders: int = 5
    gallery: int = 24
    resamples: int = RESAMPLES
    seed: int = 0

    def check(self) -> None:
        """Refuse what does not exist.

        Raises:
            UsageError: An unknown split, method or check, or one named twice.
        """
        if self.split not in SPLITS:
            raise UsageError(
                f"Split {self.split!r} is not scored. Choose {' or '.join(SPLITS)}: the model has learned from train."
            )
        for kind, names, known in (("method", self.methods, METHODS), ("check", self.checks, CHECKS)):
            for name in names:
                if name not in known:
                    raise UsageError(f"There is no {kind} {name!r}. Choose from {', '.join(known)}.")
            if len(set(names)) != len(names):
                raise UsageError(f"A {kind} is named twice: {', '.join(names)}.")
        if not self.methods:
            raise UsageError(f"No method was chosen. Choose from {', '.join(METHODS)}.")
