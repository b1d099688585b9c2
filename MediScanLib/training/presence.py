"""Clinical values for training whose presence says nothing about the label.

In collected data a laboratory value is often known only for the sick, so that a network learns "known, therefore ill".
`balanced_presence` lends values to studies without them until every label of a source knows a field equally often, and
then hides fields and whole records at random, so that every pattern of gaps is met in training.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .datasets import Study

Values = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


class PresenceBalancer:
    """Draws clinical values and masks for the studies of a training split.

    Args:
        studies: Training studies.
        values: (study, field) standardized.
        known: (study, field).
        field_dropout: Probability of hiding a known field.
        record_dropout: Probability of hiding all fields of a study.
    """

    def __init__(
        self,
        studies: Sequence[Study],
        values: Values,
        known: Mask,
        *,
        field_dropout: float = 0.3,
        record_dropout: float = 0.2,
    ) -> None:
        self._values, self._known = values, known
        self._field_dropout, self._record_dropout = field_dropout, record_dropout
        self._lend = np.zeros(values.shape)  # probability of lending a value to a study that lacks it
        self._pools: dict[tuple[str, int], Values] = {}
        self._sources = [study.source for study in studies]
        groups: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for position, study in enumerate(studies):
            groups[study.source][study.label].append(position)
        for source, labels in groups.items():
            members = [position for positions in labels.values() for position in positions]
            for field in range(values.shape[1]):
                rates = {label: known[positions, field].mean() for label, positions in labels.items()}
                self._pools[source, field] = values[members, field][known[members, field]]
                for label, positions in labels.items():
                    if max(rates.values()) > rates[label]:
                        self._lend[positions, field] = (max(rates.values()) - rates[label]) / (1 - rates[label])

    def draw(self, rng: np.random.Generator) -> tuple[Values, Mask]:
        """Values and mask for one epoch, (study, field) each."""
        values, known = self._values.copy(), self._known.copy()
        lent = ~known & (rng.random(known.shape) < self._lend)
        for study, field in np.argwhere(lent):
            values[study, field] = rng.choice(self._pools[self._sources[study], field])
        known |= lent
        known &= rng.random(known.shape) >= self._field_dropout
        known &= rng.random((len(known), 1)) >= self._record_dropout
        return values, known
