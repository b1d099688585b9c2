"""Color maps as the page draws them."""

from __future__ import annotations

from ..prediction.colormaps import color_table

_STOPS = 17


def ramp(name: str) -> str:
    """A color map as a CSS gradient from 0 to 1."""
    table = color_table(name)
    picked = [table[round(at * (len(table) - 1) / (_STOPS - 1))] for at in range(_STOPS)]
    return f"linear-gradient(to right, {', '.join('rgb({},{},{})'.format(*map(int, color)) for color in picked)})"
