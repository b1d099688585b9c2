"""Which studies make up which batch: balanced over labels and sources, and the same on every run and process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from ..errors import ConfigError
from .datasets import Study


class Draw(NamedTuple):
    """One study in one batch.

    Attributes:
        study: Position of the study in its split.
        seed: Of everything random about this draw.
        image_shown: False where the clinical values must answer alone.
    """

    study: int
    seed: int
    image_shown: bool


def balanced_weights(studies: Sequence[Study]) -> Tensor:
    """Sampling weights: the labels of a source equally often, a source by the square root of its size."""
    labels = Counter((study.source, study.label) for study in studies)
    sources = Counter(study.source for study in studies)
    kinds = Counter(source for source, _ in labels)
    return torch.tensor([sources[s.source] ** 0.5 / (kinds[s.source] * labels[s.source, s.label]) for s in studies])


class BalancedBatches(Sampler[list[Draw]]):
    """Batches of an epoch, drawn with replacement.

    Every draw is a function of (seed, epoch) alone, so that nothing needs to be remembered to go on after a stop. A
    batch is planned as a whole and then dealt out, so that it holds the same studies however many processes share it
    and in however many parts it is worked off.

    Args:
        weights: Sampling weight by study.
        batch_size: Studies per optimizer step, over all processes.
        parts: Parts of this process's share that come one after another.
        image_dropout: Probability of hiding an image.
        seed: Of all draws.
        rank: Number of this process.
        processes: How many share a batch.

    Raises:
        ConfigError: The batch does not divide into that many shares and parts.
    """

    def __init__(
        self,
        weights: Tensor,
        batch_size: int,
        *,
        parts: int = 1,
        image_dropout: float = 0.0,
        seed: int = 0,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if batch_size % (parts * processes):
            raise ConfigError(
                f"training.batch_size is {batch_size}; it does not divide into {processes} processes with {parts} "
                f"parts each. Use a multiple of {parts * processes}."
            )
        self._probabilities = (weights.double() / weights.double().sum()).numpy()
        self.batch_size, self.parts = batch_size, parts
        self._image_dropout, self._seed = image_dropout, seed
        self._rank, self._processes = rank, processes
        self.epoch = 1

    @property
    def steps(self) -> int:
        """Optimizer steps of an epoch."""
        return max(1, len(self._probabilities) // self.batch_size)

    def __len__(self) -> int:
        """Parts of batches that this process sees in an epoch."""
        return self.steps * self.parts

    def plan(self, epoch: int) -> list[list[Draw]]:
        """Whole batches of an epoch, counted from 1."""
        rng = np.random.default_rng((self._seed, epoch))
        count = self.steps * self.batch_size
        indices = rng.choice(len(self._probabilities), count, p=self._probabilities)
        seeds = rng.integers(0, 2**32, count)
        shown = rng.random(count) >= self._image_dropout
        draws = [Draw(int(i), int(s), bool(v)) for i, s, v in zip(indices, seeds, shown, strict=True)]
        return [draws[start : start + self.batch_size] for start in range(0, count, self.batch_size)]

    def __iter__(self) -> Iterator[list[Draw]]:
        """This process's parts of the batches of `epoch`."""
        for batch in self.plan(self.epoch):
            share = batch[self._rank :: self._processes]
            for part in range(self.parts):
                yield share[part :: self.parts]
