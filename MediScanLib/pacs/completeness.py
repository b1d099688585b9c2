"""When a study is complete. DICOM has no sign for it: silence after the association is the best there is."""

from __future__ import annotations

from dataclasses import dataclass

from .settings import StudySettings


@dataclass(frozen=True)
class Arrival:
    """How far a study has come in.

    Attributes:
        last_at: When the last new image came, seconds since 1970.
        is_open: An association that brought some of it is still open, or the source still gains images.
        is_broken: The last association that brought some of it broke.
    """

    last_at: float
    is_open: bool
    is_broken: bool


def complete_at(arrival: Arrival, settings: StudySettings) -> float:
    """When the study counts as complete if nothing more comes, seconds since 1970."""
    if arrival.is_open:
        return arrival.last_at + max(settings.open_s, settings.quiet_s)
    return arrival.last_at + (max(settings.broken_s, settings.quiet_s) if arrival.is_broken else settings.quiet_s)


def is_complete(arrival: Arrival, settings: StudySettings, now: float) -> bool:
    """Whether the study is to be predicted now.

    A clock that was set back would make it wait for hours: then it counts as complete at once, as what comes later
    is predicted anew anyway.
    """
    return now >= complete_at(arrival, settings) or now < arrival.last_at - 60
