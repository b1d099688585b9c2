"""Hounsfield units in files that do not say what they hold (NIfTI, NRRD and MetaImage have no modality)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

AIR_HU = -1024.0
"""Hounsfield units below this do not exist: they mark what the scanner did not see."""

_AIR_AT_MOST = -900.0
_PADDING_AT_LEAST = -4096.0
_TISSUE_AT_LEAST = 100.0


def assumed_hounsfield(pixels: npt.NDArray[np.float32]) -> str | None:
    """A sentence for the user where a volume of unknown kind can only be CT; None otherwise.

    CT alone among the modalities is negative in air, near -1000, by the definition of its unit. A single slice is not
    judged: a photograph or a filtered image may be negative too.

    Args:
        pixels: (slice, row, column).
    """
    low, high = float(pixels.min()), float(pixels.max())
    if len(pixels) < 2 or not _PADDING_AT_LEAST <= low <= _AIR_AT_MOST or high < _TISSUE_AT_LEAST:
        return None
    return (
        f"The file does not say what kind of image it is. Its values, from {low:g} to {high:g}, are taken as the "
        "Hounsfield units of a CT."
    )
