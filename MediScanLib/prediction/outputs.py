"""What comes out of the network, sample by sample."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from .assembly import Scores


@dataclass(frozen=True)
class Output:
    """What came out of the network for a batch of samples, one a row; None where not asked for or not to be had.

    Attributes:
        probabilities: (sample, finding) calibrated, float64.
        severity: (sample,) 0..1.
        contrast: (sample,) False where every pixel was the same.
        maps: (sample, finding, *cells).
        novelty: (sample,) distance from the training images.
        seen: (sample, ...) what the head took from the image, see `seen_by_head`.
        drawn: (sample, draw, finding) calibrated probabilities with dropout, see `certainty.draw`.
        pooled: (sample, C) average over the cells.
        presentation: (sample, 4) by how much it seems turned or inverted, see `network.presentation`.
    """

    probabilities: np.ndarray
    severity: np.ndarray
    contrast: np.ndarray
    maps: np.ndarray | None
    novelty: np.ndarray | None
    seen: np.ndarray
    drawn: np.ndarray | None
    pooled: np.ndarray
    presentation: np.ndarray | None

    def scores(self) -> Scores:
        """Those of one study."""
        contrast = bool(self.contrast.any())
        return Scores(self.probabilities, self.severity, contrast, self.novelty, self.drawn, self.presentation)

    def split(self) -> list[Output]:
        """One output a sample."""
        return [
            Output(*(None if part is None else part[i : i + 1] for part in self._parts()))  # type: ignore[arg-type]
            for i in range(len(self.probabilities))
        ]

    @staticmethod
    def join(outputs: Sequence[Output]) -> Output:
        """The samples of all outputs in one."""
        if len(outputs) == 1:
            return outputs[0]
        columns = zip(*(output._parts() for output in outputs), strict=True)
        return Output(*(None if column[0] is None else np.concatenate(column) for column in columns))  # type: ignore[arg-type]

    def _parts(self) -> tuple[np.ndarray | None, ...]:
        return tuple(getattr(self, part.name) for part in fields(self))
