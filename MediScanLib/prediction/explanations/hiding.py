"""Faithfulness of one map for the case at hand: hide what it shows, and see whether the model minds.

Deletion and insertion of Petsiuk et al., "RISE" (BMVC 2018). A hidden place is replaced by a blurred copy of itself,
since black is evidence in a radiograph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ...errors import UsageError
from ...progress import Progress, SilentProgress
from ...study.image import MedicalImage
from ...study.record import ClinicalRecord
from ..predictor import Predictor
from ..preprocessing import NetworkInput, prepare_slices, prepare_volume
from ..result import Faithfulness
from .asked import Asked, Ticker
from .blurring import hidden
from .explanation import Explanation
from .memory import bounded
from .orders import IntArray, elsewhere, hottest_first
from .places import Places
from .question import Question
from .samples import at_once, clinical_input, on_device
from .stages import encode

FloatArray = npt.NDArray[np.float64]

LEVEL = 0.95
"""Share of the random orders that a map must be better than."""

NO_BETTER = "The map is no better than random places: do not read it as where the finding is."
EMPTY = "The map is empty: it names no place that could be hidden."


class Curves(NamedTuple):
    """Probability on the way, for one order.

    Attributes:
        hiding: (step + 1,) the first places of the order hidden, from none to all.
        showing: (step + 1,) nothing but the first places of the order shown, from none to all.
    """

    hiding: FloatArray
    showing: FloatArray

    @property
    def deletion(self) -> float:
        """Mean probability while hiding."""
        return _area(self.hiding)

    @property
    def insertion(self) -> float:
        """Mean probability while showing."""
        return _area(self.showing)

    @property
    def gain(self) -> float:
        """What a good order has much of."""
        return self.insertion - self.deletion

    @property
    def backwards(self) -> Curves:
        """Of the same order from its end: the last places hidden are the others shown."""
        return Curves(self.showing[::-1], self.hiding[::-1])


def faithfulness(
    predictor: Predictor,
    image: MedicalImage,
    record: ClinicalRecord | None,
    explanation: Explanation,
    finding: str,
    *,
    steps: int = 20,
    random_orders: int = 10,
    seed: int = 0,
    progress: Progress | None = None,
) -> Faithfulness:
    """Whether the model leans on the places that a map shows, more than on other places.

    The network's input is cut into 16 x 16 places (8 x 8 x 8 of a volume for a 3D network). From step to step more of
    them are hidden, or shown, the hottest first, and the calibrated probability is averaged on the way; for a contrast
    it is that of the finding where it is one of the two. A 2D network is asked about the slice on which the map is
    hottest. Random orders follow maps that are as smooth as this one and hot elsewhere (`orders.elsewhere`); each
    counts forwards and backwards, which costs nothing.

    A map is better than random where its insertion less its deletion is above the 95th percentile of that of the
    random orders, rounded up to one of them: with ten, that is above all. A map that knows nothing passes one time
    in 2 (random_orders + 1).

    Args:
        predictor: The model that was explained.
        image: The image that was explained.
        record: What is known of the patient, as for the explanation.
        explanation: From `explain`.
        finding: One of those explained.
        steps: Steps from nothing to everything.
        random_orders: How many orders to compare with.
        seed: Of the random orders.
        progress: Hears of every pass through the network and may cancel.

    Raises:
        UsageError: The explanation is of another image or not of that finding, or there is nothing to compare.
        DeviceError: Memory ran out.
        CancelledError: `progress` asked to stop.
    """
    maps = explanation.maps
    if finding not in maps.labels:
        raise UsageError(f"The explanation is not of {finding!r}. Choose from {', '.join(maps.labels)}.")
    if tuple(maps.shape) != image.shape:
        raise UsageError(
            f"The explanation is of an image of {maps.shape} slices, rows and columns, not of {image.shape}. "
            "Give the image that was explained."
        )
    if steps < 1 or random_orders < 1:
        raise UsageError(f"{steps} steps and {random_orders} random orders are too few. Choose 1 at least.")
    peak, at = maps.peak(finding)
    prepared = _prepared(predictor, image, at[0])
    places = Places.of(prepared, image.shape)
    heat = places.heat(maps, finding, prepared)
    draws = np.random.default_rng(seed)
    orders = [hottest_first(heat, places.inside, draws)]
    orders += [hottest_first(elsewhere(heat, draws), places.inside, draws) for _ in range(random_orders)]
    question = Question.of(predictor.bundle.card, [finding], explanation.against)
    own, *others = _ask(predictor, image, record, prepared, places, orders, steps, question, progress)
    both = [curves for other in others for curves in (other, other.backwards)]
    better = peak > 0 and own.gain > float(np.quantile([curves.gain for curves in both], LEVEL, method="higher"))
    return Faithfulness(
        finding=finding,
        method=explanation.method,
        deletion=own.deletion,
        insertion=own.insertion,
        random_deletion=float(np.mean([curves.deletion for curves in both])),
        random_insertion=float(np.mean([curves.insertion for curves in both])),
        better_than_random=better,
        verdict=_verdict(own, both, better, explanation.against) if peak > 0 else EMPTY,
    )


def _prepared(predictor: Predictor, image: MedicalImage, slice_index: int) -> NetworkInput:
    card = predictor.bundle.card
    if card.network.spatial_dims == 3:
        return prepare_volume(image, card.input)
    return prepare_slices(image, card.input, [slice_index])


def _ask(
    predictor: Predictor,
    image: MedicalImage,
    record: ClinicalRecord | None,
    prepared: NetworkInput,
    places: Places,
    orders: Sequence[IntArray],
    steps: int,
    question: Question,
    progress: Progress | None,
) -> list[Curves]:
    """The network's answers for every order; what all orders share, nothing and everything hidden, is asked once."""
    card, together = predictor.bundle.card, at_once(predictor)
    states = [np.zeros_like(places.inside), places.inside]
    for ranks in orders:
        first = [places.inside & (ranks < _reached(ranks, step, steps)) for step in range(1, steps)]
        states += first
        states += [places.inside & ~some for some in first]
    with torch.inference_mode(False), torch.no_grad(), bounded(predictor.device, together):
        values, observed = clinical_input(predictor, image, record)
        tensor = on_device(predictor, prepared)
        ticker = Ticker(progress or SilentProgress(), "faithfulness", len(states))
        encoded = encode(predictor.network, tensor)
        asked = Asked(predictor.network, card, question, tensor, values, observed, encoded, together, ticker)
        without = hidden(tensor)
        found: list[Tensor] = []
        for part in asked.batches(len(states)):
            masks = places.pixels(np.stack(states[part])).to(tensor.device)[:, None]
            odds = asked.log_odds(asked.logits(torch.where(masks, without, tensor)))
            found.append(torch.sigmoid(odds[:, 0]))
            ticker.after(part.stop - part.start)
    probabilities = torch.cat(found).numpy()
    intact, nothing = probabilities[0], probabilities[1]
    curves = []
    for between in probabilities[2:].reshape(len(orders), 2, steps - 1):
        curves.append(Curves(np.array([intact, *between[0], nothing]), np.array([nothing, *between[1], intact])))
    return curves


def _reached(ranks: IntArray, step: int, steps: int) -> int:
    """Places that are hidden after a step."""
    return round((int(ranks.max()) + 1) * step / steps)


def _area(curve: FloatArray) -> float:
    """Mean along the way, by the trapezoidal rule; rounding must not carry it out of 0..1."""
    return float(np.clip((curve[:-1] + curve[1:]).mean() / 2, 0, 1))


def _verdict(own: Curves, others: Sequence[Curves], better: bool, against: str | None) -> str:
    if not better:
        return NO_BETTER
    steps = len(own.hiding) - 1
    step = max(1, round(steps / 5))
    share = "fifth" if 5 * step == steps else f"{step / steps:.0%}".replace("%", " %")
    before, after = float(own.hiding[0]), float(own.hiding[step])
    elsewhere_ = float(np.mean([curves.hiding[step] for curves in others]))
    verb = "lowers" if after < before else "takes"
    what = "the probability" if against is None else f"the probability against {against}"
    return (
        f"Hiding the hottest {share} of the places {verb} {what} from {_number(before)} to {_number(after)}; "
        f"random places to {_number(elsewhere_)}."
    )


def _number(probability: float) -> str:
    return f"{probability:.2f}" if 0.01 <= probability <= 0.99 else f"{probability:.3f}"
