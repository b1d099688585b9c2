"""The encoder's features of the study that was seen last, so that another record costs the head only."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import fields
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from torch import Tensor

from ..network.fusion import FusionNetwork
from ..study.image import MedicalImage
from .digest import pixels_digest
from .preprocessing import NetworkInput

MOST_BYTES = 256 * 1024**2
"""Features of one study that are kept, at most, on the device that made them."""

_SAYS_NOTHING_OF_PIXELS = {"pixels", "identifiers", "prefill", "reader", "source", "warnings"}


class Encoded(NamedTuple):
    """A batch that went through the encoder.

    Attributes:
        features: (sample, C, *cells).
        contrast: (sample,) False where every pixel was the same.
    """

    features: Tensor
    contrast: npt.NDArray[np.bool_]


class Remembered(NamedTuple):
    """A study that went through the encoder.

    Attributes:
        prepared: Its slices and axes; the tensor is empty.
        batches: As they went through the encoder: in other batches the last digits would be others.
    """

    prepared: NetworkInput
    batches: list[Encoded]


class LastStudy:
    """Keeps what the encoder made of one study.

    Args:
        most_bytes: A study with more features is not kept.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._key: Hashable = None
        self._batches: list[Encoded] | None = None
        self._study: Remembered | None = None

    def recall(self, key: Hashable) -> Remembered | None:
        """The study of that key; None where it was another or was not kept."""
        return self._study if self._key == key else None

    def begin(self, key: Hashable) -> None:
        """Forget the last study, whose memory goes before that of the next one comes."""
        self.forget()
        self._key, self._batches = key, []

    def add(self, batch: Encoded) -> None:
        """A batch of the study that was begun; nothing where that was forgotten."""
        if self._batches is None:
            return
        self._batches.append(batch)
        if sum(kept.features.nbytes for kept in self._batches) > self._most_bytes:
            self.forget()

    def finish(self, prepared: NetworkInput) -> None:
        """All batches have been added: from now on the study can be recalled."""
        if self._batches is not None:
            # a slice of the tensor would keep all of it alive
            empty = NetworkInput(prepared.tensor.new_empty(0), prepared.axes, prepared.slices)
            self._study, self._batches = Remembered(empty, self._batches), None

    def forget(self) -> None:
        """Keep nothing, also nothing more of the study that was begun."""
        self._key = self._batches = self._study = None


def image_key(image: MedicalImage, slices: Sequence[int] | None) -> Hashable:
    """What decides how the image goes into a network: a digest of the pixels, and the facts beside them.

    Args:
        image: Image.
        slices: Those that are looked at, all of them in the image; the whole image where None.
    """
    facts: list[Any] = [
        getattr(image, part.name) for part in fields(image) if part.name not in _SAYS_NOTHING_OF_PIXELS
    ]
    there = range(image.shape[0])  # any other slice is refused when the image is prepared
    looked_at = [image.pixels] if slices is None else [image.pixels[index] for index in slices if index in there]
    return pixels_digest(*looked_at), image.shape, None if slices is None else tuple(slices), *facts


def encoder_state(network: FusionNetwork) -> Hashable:
    """Changes whenever a weight of the encoder is replaced or changed in place."""
    own = ((*module._parameters.values(), *module._buffers.values()) for module in network.encoder.modules())
    tensors = (network.feature_mean, network.feature_std, *chain.from_iterable(own))
    # tensors made in inference mode have no version, and cannot be changed outside of it
    return tuple(
        (id(tensor), 0 if tensor.is_inference() else tensor._version) for tensor in tensors if tensor is not None
    )
