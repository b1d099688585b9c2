"""How a heat map is drawn."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from ..errors import UsageError
from ..prediction.colormaps import COLOR_MAPS
from .nodes import Node

DEFAULT_OPACITY = 0.5
DEFAULT_THRESHOLD = 0.25

STYLE = "MediScan.Style"
"""Attribute of an overlay: the style it is drawn in, so that it is known after saving and loading."""


@dataclass(frozen=True)
class Style:
    """How a heat map is drawn.

    Attributes:
        visible: Whether it lies over the image.
        opacity: 0..1.
        threshold: Values below it are not drawn, 0..1 of the scale.
        colors: One of `COLOR_MAPS`.
        outline: A line around the region from the threshold on, in place of its colors.
        common_scale: 1.0 is the largest of the scales of all findings, so that findings can be compared with each
            other; else the finding's own scale, as it comes with the model.
        legend: Whether a legend of the colors stands in the views.

    Raises:
        UsageError: A value is out of its range.
    """

    visible: bool = True
    opacity: float = DEFAULT_OPACITY
    threshold: float = DEFAULT_THRESHOLD
    colors: str = COLOR_MAPS[0]
    outline: bool = False
    common_scale: bool = False
    legend: bool = True

    def __post_init__(self) -> None:
        for name in ("opacity", "threshold"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise UsageError(f"The {name} of a heat map is {value}. It must be from 0 to 1.")
        if self.colors not in COLOR_MAPS:
            raise UsageError(f"There are no colors {self.colors!r}. Choose one of {', '.join(COLOR_MAPS)}.")

    @property
    def voxels(self) -> tuple[bool, bool, float]:
        """What the voxels of the overlay depend on: two styles that agree in it differ in the display only."""
        return self.outline, self.common_scale, self.threshold if self.outline else 0.0


def style_of(overlay: Node) -> Style:
    """The style that an overlay is drawn in; the default where it says nothing that can be read."""
    try:
        return Style(**json.loads(overlay.GetAttribute(STYLE) or "{}"))
    except (ValueError, TypeError, UsageError):
        return Style()


def remember_style(overlay: Node, style: Style) -> None:
    """Keep the style on the overlay."""
    overlay.SetAttribute(STYLE, json.dumps(asdict(style)))
