"""The one way in: an object that arrived, by whichever protocol, is checked, filed and remembered."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from ..errors import ReadError
from .arrivals import ArrivalStore
from .facts import Facts, read_facts
from .folder import NodeFolder, content_digest, key_of
from .problems import NotForUsError, PacsError

_log = logging.getLogger("mediscan.pacs")


@dataclass(frozen=True)
class Taken:
    """An image that was taken in.

    Attributes:
        facts: What its header says.
        is_new: Whether it was not known before.
    """

    facts: Facts
    is_new: bool


class Intake:
    """Takes images in.

    Args:
        folder: Where files lie.
        arrivals: What came in.
        most_bytes: Largest object.
    """

    def __init__(self, folder: NodeFolder, arrivals: ArrivalStore, most_bytes: float) -> None:
        self.folder, self.arrivals, self.most_bytes = folder, arrivals, most_bytes

    def take(self, path: Path, origin: str, *, expected: tuple[str, str] | None = None) -> Taken:
        """Take in a file of the folder's `incoming`. Once this returns, the image is on the disk.

        Args:
            path: A complete DICOM file; it is moved.
            origin: "ae:" or "web:" and the name of where it came from.
            expected: (SOP class, SOP instance) that it was announced as.

        Raises:
            NotForUsError: It is left alone.
            DiskFullError: There is no room.
            PacsError: It cannot be filed: a UID is missing or another than announced, or there is too much of it.
            ReadError: Its header cannot be read.
        """
        size = path.stat().st_size
        if size > self.most_bytes:
            raise PacsError(f"an object of {size >> 20} MiB is larger than limits.instance_mb.", code="too_large")
        if expected is not None and self.arrivals.is_own(expected[1]):
            raise NotForUsError("a result of MediScan came back.")
        facts = read_facts(path, "an object")
        if expected is not None and (facts.sop_class, facts.uid) != expected:
            raise PacsError("an object has another UID or class than it was announced with.", code="uid_mismatch")
        if self.arrivals.is_own(facts.uid):
            raise NotForUsError("a result of MediScan came back.")
        digest = content_digest(path)
        self.arrivals.check_room(facts, digest)
        with path.open("r+b") as stream:  # Windows syncs only what may be written
            try:
                os.fsync(stream.fileno())
            except OSError as error:
                raise self.folder.explained(error) from error
        with self.folder.filing(key_of(facts.study_uid)):
            file = self.folder.place(path, key_of(facts.study_uid), facts.uid, digest)
            new = self.arrivals.add(facts, digest, file, size, origin)
        if new and not facts.has_patient_id:
            _log.warning(
                "study %s: image %s has no Patient ID; results are filed by their study alone.",
                key_of(facts.study_uid),
                key_of(facts.uid),
            )
        return Taken(facts, new)


def refusal(error: Exception) -> str:
    """What to log of an object that was not taken; messages of `take` name no patient."""
    if isinstance(error, PacsError | ReadError):
        return str(error)
    return f"an object cannot be taken ({type(error).__name__})."
