"""Luminance of colour pixels, for every format in the same way."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_WEIGHTS = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def luminance(channels: npt.NDArray) -> npt.NDArray[np.float32]:
    """Luminance of (..., red, green, blue[, alpha]) by ITU-R BT.601, the Y of JPEG and of DICOM's YBR_FULL."""
    return channels[..., :3].astype(np.float32) @ _WEIGHTS
