"""Whether pixels are still the same."""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt


def pixels_digest(*arrays: npt.NDArray[np.float32]) -> str:
    """BLAKE2b of the bytes of contiguous arrays; about a millisecond a megabyte.

    A `MedicalImage` is frozen, but whoever made it may still hold the array under its pixels and change that.
    """
    digest = hashlib.blake2b(digest_size=32)
    for array in arrays:
        digest.update(array.reshape(-1).data)
    return digest.hexdigest()
