"""How results get to a destination: C-STORE or STOW-RS."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filereader import read_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from .destinations import Destination, StoreDestination
from .encryption import client_context
from .problems import PeerError

if TYPE_CHECKING:
    from pynetdicom.association import Association

_log = logging.getLogger("mediscan.pacs")

_WARNINGS = (0xB000, 0xB006, 0xB007, 0x0107, 0x0116)  # stored, with a remark (PS3.4, table B.2-1; PS3.7, annex C)
_LEVELS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_FULL = range(0xA700, 0xA800)


@dataclass
class Outcome:
    """What became of some objects.

    Attributes:
        sent: UIDs that the destination said it has.
        uncertain: UIDs that it may have.
        error: Why not all of them were sent; None where they were.
    """

    sent: set[str]
    uncertain: set[str]
    error: PeerError | None = None


class Sender(Protocol):
    """Brings objects to one destination."""

    def send(self, objects: Sequence[tuple[str, Path]]) -> Outcome:
        """Send objects, (SOP Instance UID, file) each, in their order, until one cannot be sent."""

    def present(self, objects: Sequence[tuple[str, Path]]) -> set[str]:
        """Which of them it has already, as far as it can be asked.

        Raises:
            PeerError: It cannot be reached.
        """


def make_sender(name: str, destination: Destination, ae_title: str) -> Sender:
    """The sender for a destination.

    Args:
        name: Of the destination, for messages.
        destination: Where it is.
        ae_title: What this node calls itself.
    """
    if isinstance(destination, StoreDestination):
        return StoreSender(name, destination, ae_title)
    from .stow import StowSender

    return StowSender(name, destination)


class StoreSender:
    """Sends by C-STORE.

    Args:
        name: Of the destination.
        destination: Where it is.
        ae_title: What this node calls itself.
    """

    def __init__(self, name: str, destination: StoreDestination, ae_title: str) -> None:
        self._name, self._destination, self._ae_title = name, destination, ae_title

    def send(self, objects: Sequence[tuple[str, Path]]) -> Outcome:
        """See `Sender`."""
        outcome = Outcome(set(), set())
        classes = {str(dcmread(path, specific_tags=["SOPClassUID"]).SOPClassUID) for _, path in objects}
        try:
            association = self._associate(sorted(classes))
        except PeerError as error:
            outcome.error = error
            return outcome
        try:
            for uid, path in objects:
                self._send_one(association, uid, path, outcome)
                if outcome.error is not None:
                    break
        finally:
            self._end(association)
        return outcome

    def _send_one(self, association: Association, uid: str, path: Path, outcome: Outcome) -> None:
        try:
            answer = association.send_c_store(self._sendable(association, path))
        except RuntimeError:  # the association is gone: it was not sent
            outcome.error = PeerError(f"{self._name}: ended the connection.", unreachable=True)
            return
        except ValueError as error:  # none of what was agreed on fits
            known = str(dcmread(path, specific_tags=["SOPClassUID"]).SOPClassUID.name)
            outcome.error = PeerError(f"{self._name}: does not take objects of the kind {known}.", code="not_taken")
            _log.debug("%s", type(error).__name__)
            return
        if "Status" not in answer:
            outcome.uncertain.add(uid)
            outcome.error = PeerError(
                f"{self._name}: did not say whether it took an object; the connection broke or it fell silent.",
                uncertain=True,
            )
            return
        status = int(answer.Status)
        if status == 0x0000 or status in _WARNINGS:
            outcome.sent.add(uid)
            if status:
                _log.warning("%s: took an object with a remark (status %04X).", self._name, status)
            return
        outcome.error = PeerError(
            f"{self._name}: has no room (status {status:04X}). Free some space there."
            if status in _FULL
            else f"{self._name}: refused an object (status {status:04X}). Its log says why.",
            code="peer_full" if status in _FULL else "refused",
        )

    @staticmethod
    def _sendable(association: Association, path: Path) -> Path | Dataset:
        """A file goes as it is where its transfer syntax is taken, and is parsed and written anew otherwise."""
        meta = read_file_meta_info(path)
        taken = {
            context.transfer_syntax[0]
            for context in association.accepted_contexts
            if context.abstract_syntax == meta.MediaStorageSOPClassUID
        }
        return path if meta.TransferSyntaxUID in taken else dcmread(path)

    def present(self, objects: Sequence[tuple[str, Path]]) -> set[str]:
        """See `Sender`; asked by C-FIND, where the destination answers it."""
        from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Find  # type: ignore[attr-defined]

        association = self._associate([str(Find)], refusable=True)
        if association is None:
            return set()
        found: set[str] = set()
        try:
            for uid, path in objects:
                for status, identifier in association.send_c_find(_query(path), Find):
                    pending = status and status.Status in (0xFF00, 0xFF01) and identifier is not None
                    if pending and str(identifier.get("SOPInstanceUID", "")) == uid:
                        found.add(uid)
        except (RuntimeError, ValueError):
            return found
        finally:
            self._end(association)
        return found

    def _associate(self, classes: Sequence[str], *, refusable: bool = False) -> Any:
        from pynetdicom import AE, _config

        from .latency import prompt_handlers

        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # it logs headers
        _config.STORE_SEND_CHUNKED_DATASET = True  # files go piece by piece, and are not parsed
        to = self._destination
        entity = AE(self._ae_title)
        entity.connection_timeout = entity.acse_timeout = min(to.timeout_s, 30.0)
        entity.dimse_timeout = entity.network_timeout = to.timeout_s
        for uid in classes:
            entity.add_requested_context(uid, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
        tls = None if to.tls is None else (client_context(to.tls), to.host)
        association = entity.associate(
            to.host, to.port, ae_title=to.ae_title, tls_args=tls, evt_handlers=prompt_handlers()
        )
        if association.is_established:
            return association
        if association.is_rejected:
            raise PeerError(
                f"{self._name}: refused the connection. Make {self._ae_title} known to it, and check ae_title.",
                unreachable=True,
            )
        if association.is_aborted and association.acceptor.primitive is not None:
            if refusable:
                return None
            raise PeerError(f"{self._name}: takes none of these kinds of objects.", code="not_taken")
        raise PeerError(f"{self._name}: cannot be reached at {to.host}:{to.port}.", unreachable=True)

    @staticmethod
    def _end(association: Association) -> None:
        if association.is_established:
            association.release()


def _query(path: Path) -> Dataset:
    """What finds an object on the image level."""
    header = dcmread(path, stop_before_pixels=True, specific_tags=[*_LEVELS])
    query = Dataset()
    query.QueryRetrieveLevel = "IMAGE"
    for keyword in _LEVELS:
        query[keyword] = header[keyword]
    return query
