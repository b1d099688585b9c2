"""Color maps that rise steadily in lightness, so that color-blind readers rank values as others do.

Inferno and Viridis by Nathaniel Smith and Stefan van der Walt (2015), Cividis by Jamie Nunez, Christopher Anderton and
Ryan Renslow (2018), all perceptually uniform and released under CC0. Hot iron is the palette that readers of nuclear
medicine know (DICOM PS3.6, B.1.1): red rises first, then green, then blue. A few stops are kept of each, between
which colors are interpolated linearly.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

_STOPS = {
    "inferno": (
        "000004 040312 0b0724 150b37 210c4a 2f0a5b 3d0965 4a0c6b 57106e 64156e 71196e 7d1e6d 8a226a 972766 "
        "a32c61 b0315b bc3754 c73e4c d24644 db503b e45a31 eb6628 f1731d f68013 f98e09 fb9d07 fcac11 fbbc21 "
        "f9cb35 f5db4c f2ea69 f3f68a fcffa4"
    ),
    "viridis": (
        "440154 470d60 48186a 482374 472d7b 453781 424086 3e4989 3b528b 375b8d 33638d 2f6b8e 2c728e 297a8e "
        "26828e 23898e 21918c 1f988b 1fa088 22a785 28ae80 32b67a 3fbc73 4ec36b 5ec962 70cf57 84d44b 98d83e "
        "addc30 c2df23 d8e219 ece51b fde725"
    ),
    "cividis": (
        "00224e 002656 002a5f 002d68 003070 083370 163770 203a6f 273e6e 2e416d 34456c 3a486c 3f4c6c 444f6c "
        "49536c 4e566c 535a6d 575d6d 5c616e 60646f 656870 696b71 6d6f72 727274 767676 7a7a78 7e7d78 838179 "
        "888578 8d8878 928c78 969077 9b9476 a09875 a59c74 aaa073 afa471 b5a86f baac6d bfb06b c4b468 c9b965 "
        "cfbd62 d4c15f dac65b dfca57 e5cf52 ead34c f0d846 f6dd3f fce236 fee838"
    ),
    "hot iron": "000000 800000 ff0000 ff8000 ffffff",
}

COLOR_MAPS = tuple(_STOPS)
"""Names of the color maps; the first is the default."""


@lru_cache
def color_table(name: str = "inferno", size: int = 256) -> npt.NDArray[np.uint8]:
    """(size, 3) RGB from the lowest value to the highest.

    Raises:
        KeyError: No such color map.
    """
    stops = np.array([[int(stop[i : i + 2], 16) for i in (0, 2, 4)] for stop in _STOPS[name].split()])
    at = np.linspace(0, len(stops) - 1, size)
    table = np.stack([np.interp(at, np.arange(len(stops)), channel) for channel in stops.T], axis=1)
    table = np.rint(table).astype(np.uint8)
    table.flags.writeable = False
    return table
