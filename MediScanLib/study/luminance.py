"""Luminance of colour pixels, for every format in the same way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)

_TINT = 24
"""Difference of channels, of 255, from which a pixel counts as coloured: JPEG gives grey pictures a faint tint."""

_TINTED_SHARE = 0.001


def luminance(channels: npt.NDArray) -> npt.NDArray[np.float32]:
    """Luminance of (..., red, green, blue[, alpha]) by ITU-R BT.601, the Y of JPEG and of DICOM's YBR_FULL."""
    return channels[..., :3].astype(np.float32) @ _WEIGHTS


def to_gray(channels: npt.NDArray) -> tuple[npt.NDArray, bool]:
    """Gray values of (..., red, green, blue) and whether the picture is truly coloured.

    Equal channels are a gray picture stored as colour: their values are kept as they are.

    Args:
        channels: (..., 3), 0 to 255.
    """
    spread = channels.max(axis=-1).astype(np.float32) - channels.min(axis=-1)
    if not spread.any():
        return channels[..., 0], False
    return luminance(channels), float((spread > _TINT).mean()) > _TINTED_SHARE
