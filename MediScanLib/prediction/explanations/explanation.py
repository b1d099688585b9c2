"""What an explanation is, whichever method made it."""

from __future__ import annotations

from dataclasses import dataclass

from ..heatmaps import HeatMaps


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where one study speaks for some findings, as one method sees it.

    Attributes:
        method: One of METHODS.
        against: The finding that the maps tell theirs from; None where they tell it from everything.
        maps: A map a finding on the grid of the method, >= 0: evidence for the finding. What speaks against it is cut
            off.
        scale_meaning: What the colors' 1.0 stands for, in words for a legend.
        seconds: Wall time.
        relative_cost: Time in the network as a multiple of one bare forward pass of the same study, measured in the
            same call.
        notes: What a user should know of these maps, such as how the method was set.
    """

    method: str
    against: str | None
    maps: HeatMaps
    scale_meaning: str
    seconds: float
    relative_cost: float
    notes: tuple[str, ...] = ()
