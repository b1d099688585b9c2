"""Orders in which the places of an image are hidden: by a map, and by maps that know nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


def hottest_first(heat: FloatArray, inside: npt.NDArray[np.bool_], draws: np.random.Generator) -> IntArray:
    """Rank of every place, 0 for the hottest; -1 outside the image. Places that are equally hot are drawn.

    Args:
        heat: (*cells).
        inside: (*cells) False where the image has nothing.
        draws: For ties.
    """
    places = np.flatnonzero(inside)
    order = np.lexsort((draws.random(len(places)), -heat.ravel()[places]))
    ranks = np.full(heat.size, -1, dtype=np.int64)
    ranks[places[order]] = np.arange(len(places))
    return ranks.reshape(heat.shape)


def elsewhere(heat: FloatArray, draws: np.random.Generator) -> FloatArray:
    """A map that is as smooth as another, and hot at random places.

    The amplitudes of its Fourier transform are those of the map, its phases are drawn (Theiler et al., "Testing for
    nonlinearity in time series: the method of surrogate data", 1992). Single cells in random order would be too weak
    an opponent: a patch anywhere moves the answer more than as many cells strewn over the image.
    """
    phases = np.fft.fftn(draws.standard_normal(heat.shape))
    phases /= np.maximum(np.abs(phases), np.finfo(np.float64).tiny)
    found: FloatArray = np.fft.ifftn(np.abs(np.fft.fftn(heat - heat.mean())) * phases).real
    return found
