"""What a method gets: a batch of one study in front of a network, and how much of it may be in memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ...errors import CancelledError
from ...network.card import Card
from ...network.fusion import FusionNetwork
from ...progress import Progress
from .grid import Grid
from .question import Question
from .stages import Encoded

GRADIENT_SHARE = 4
"""A pass that keeps what backpropagation needs takes about this many times the memory of one that does not."""


class Found(NamedTuple):
    """What a method found in a batch.

    Attributes:
        maps: (B, finding, *cells), >= 0.
        grid: Of the cells.
        note: What a user should know of these maps.
        gravity: The note of the batch in which it is gravest is the one to be shown.
    """

    maps: Tensor
    grid: Grid
    note: str = ""
    gravity: float = 0.0


class Ticker:
    """Counts passes through the network, tells how far it is, and stops between two of them.

    Args:
        progress: Who hears of it.
        stage: What is being done.
        total: Passes.
    """

    def __init__(self, progress: Progress, stage: str, total: int) -> None:
        self._progress, self._stage, self._total, self._done = progress, stage, total, 0
        progress.report(stage, 0, total)

    def before(self) -> None:
        """Of a pass.

        Raises:
            CancelledError: The user wants no more.
        """
        if self._progress.cancelled():
            raise CancelledError(f"Cancelled during {self._stage} after {self._done} of {self._total} steps.")

    def after(self, count: int) -> None:
        """Of `count` passes."""
        self._done = min(self._done + count, self._total)
        self._progress.report(self._stage, self._done, self._total)


@dataclass(frozen=True, eq=False)
class Asked:
    """A batch of one study.

    Attributes:
        network: In evaluation mode.
        card: Of the model.
        question: What is asked of it.
        tensor: (B, 1, *size) on the network's device.
        values: (1, field) standardized clinical values, on the network's device.
        observed: (1, field) which of them are known.
        encoded: What the encoder made of the tensor.
        at_once: Images that go through the network together, at most.
        ticker: Is told of every pass.
    """

    network: FusionNetwork
    card: Card
    question: Question
    tensor: Tensor
    values: Tensor
    observed: Tensor
    encoded: Encoded
    at_once: int
    ticker: Ticker

    @property
    def size(self) -> tuple[int, ...]:
        """Of the network's input, by axis."""
        return tuple(self.tensor.shape[2:])

    @property
    def directions(self) -> Tensor:
        """See `Question.directions`."""
        return self.question.directions.to(self.values)

    def head(self, features: Tensor) -> Tensor:
        """Logits (N, K) of features (N, C, *cells), with the study's clinical values and no dropout."""
        features = features.to(self.network.disease.weight.dtype)  # the encoder may have run in reduced precision
        count = len(features)
        return self.network.head(
            features, self.values.expand(count, -1), self.observed.expand(count, -1), dropout=False
        ).logits

    def logits(self, images: Tensor) -> Tensor:
        """Logits (N, K) of images (N, 1, *size)."""
        return self.head(self.network.features(images))

    def scores(self, images: Tensor) -> Tensor:
        """What is explained, (N, finding)."""
        return self.logits(images) @ self.directions.T

    def log_odds(self, logits: Tensor) -> Tensor:
        """See `Question.log_odds`."""
        return self.question.log_odds(logits, self.card.calibration)

    def batches(self, count: int, *, gradients: bool = False) -> Iterator[slice]:
        """Parts of `count` images that go through the network together.

        Raises:
            CancelledError: Before a part, where the user wants no more.
        """
        step = max(1, self.at_once // GRADIENT_SHARE) if gradients else self.at_once
        for start in range(0, count, step):
            self.ticker.before()
            yield slice(start, min(start + step, count))


def gradients_of(scores: Tensor, leaf: Tensor) -> Iterator[Tensor]:
    """d score / d leaf, one after the other for each column of scores (N, finding) that were made from it."""
    for finding in range(scores.shape[1]):
        last = finding == scores.shape[1] - 1
        chosen = torch.zeros_like(scores)
        chosen[:, finding] = 1.0
        yield torch.autograd.grad(scores, leaf, chosen, retain_graph=not last)[0]
