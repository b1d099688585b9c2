"""Sending by STOW-RS (PS3.18, 10.5)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset

from .destinations import StowDestination
from .problems import PeerError
from .sending import Outcome
from .web_access import explained, make_client, make_session


class StowSender:
    """Sends by STOW-RS, one object a request: what became of each is then known.

    Args:
        name: Of the destination.
        destination: Where it is.

    Raises:
        PacsError: A file with a secret cannot be read.
    """

    def __init__(self, name: str, destination: StowDestination) -> None:
        self._name = name
        self._client = make_client(destination, make_session(destination))

    def send(self, objects: Sequence[tuple[str, Path]]) -> Outcome:
        """See `Sender`."""
        outcome = Outcome(set(), set())
        for uid, path in objects:
            try:
                with explained(self._name):
                    answer = self._client.store_instances([dcmread(path)])
                    refused = _refusal(answer, uid)
            except PeerError as error:
                outcome.error = error
                if error.uncertain:
                    outcome.uncertain.add(uid)
                return outcome
            if refused is not None:
                outcome.error = PeerError(
                    f"{self._name}: has no room (reason {refused:04X})."
                    if 0xA700 <= refused < 0xA800
                    else f"{self._name}: refused an object (reason {refused:04X}). Its log says why.",
                    code="peer_full" if 0xA700 <= refused < 0xA800 else "refused",
                )
                return outcome
            outcome.sent.add(uid)
        return outcome

    def present(self, objects: Sequence[tuple[str, Path]]) -> set[str]:
        """See `Sender`; asked by QIDO-RS."""
        found = set()
        for uid, path in objects:
            header = dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID", "SeriesInstanceUID"])
            with explained(self._name):
                answer = self._client.search_for_instances(
                    str(header.StudyInstanceUID),
                    str(header.SeriesInstanceUID),
                    search_filters={"SOPInstanceUID": uid},
                )
                if any(item.get("00080018", {}).get("Value") == [uid] for item in answer):
                    found.add(uid)
        return found


def _refusal(answer: Dataset, uid: str) -> int | None:
    """The Failure Reason of an object; None where it was stored. Some archives answer 200 and say so only here."""
    for item in answer.get("FailedSOPSequence") or []:
        if str(item.get("ReferencedSOPInstanceUID", uid)) == uid:
            return int(item.get("FailureReason", 0x0110))
    return None
