"""The DICOM node: C-ECHO and C-STORE (PS3.4, annexes A and B)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from pydicom.filewriter import write_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGLSTransferSyntaxes,
    JPEGTransferSyntaxes,
    RLELossless,
)
from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from ..errors import ReadError
from .connections import Connections
from .encryption import server_context
from .folder import key_of
from .intake import Intake, refusal
from .latency import prompt_handlers
from .problems import NotForUsError, PacsError
from .settings import MEBIBYTE, ListenSettings

_log = logging.getLogger("mediscan.pacs")

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DOES_NOT_MATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
_MISMATCHES = ("missing_uid", "uid_mismatch")

_SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    *JPEGTransferSyntaxes,
    *JPEGLSTransferSyntaxes,
    *JPEG2000TransferSyntaxes,
    RLELossless,
]


class Listener:
    """Takes what others send.

    Args:
        settings: Address, name and who may call.
        intake: Where images go.
        connections: Hears which studies are still coming.
        wake: Called after an image came and when a connection ended.
        most_bytes: A connection that sends more for one object is ended.

    Raises:
        PacsError: The address is taken, or a certificate cannot be used.
    """

    def __init__(
        self,
        settings: ListenSettings,
        intake: Intake,
        connections: Connections,
        wake: Callable[[], None],
        most_bytes: float,
    ) -> None:
        self._intake, self._connections, self._wake, self._most = intake, connections, wake, most_bytes
        self._received: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)  # it logs headers
        entity = AE(settings.ae_title)
        entity.maximum_associations = settings.max_associations
        entity.maximum_pdu_size = settings.max_pdu
        entity.network_timeout = entity.dimse_timeout = settings.idle_s
        entity.acse_timeout = min(settings.idle_s, 30.0)
        entity.require_called_aet = True
        entity.require_calling_aet = list(settings.callers)
        for context in AllStoragePresentationContexts:
            entity.add_supported_context(str(context.abstract_syntax), _SYNTAXES)
        entity.add_supported_context(Verification, [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
        try:
            server = entity.start_server(
                (settings.host, settings.port),
                block=False,
                ssl_context=None if settings.tls is None else server_context(settings.tls),
                evt_handlers=[
                    *prompt_handlers(),
                    (evt.EVT_C_ECHO, lambda _: SUCCESS),
                    (evt.EVT_C_STORE, self._store),
                    (evt.EVT_DATA_RECV, self._count),
                    (evt.EVT_RELEASED, self._released),
                    (evt.EVT_ABORTED, self._closed),
                    (evt.EVT_CONN_CLOSE, self._closed),
                    (evt.EVT_REJECTED, self._rejected),
                ],
            )
        except OSError as error:
            raise PacsError(
                f"{settings.host}:{settings.port}: cannot listen there ({error.strerror or error}). Choose another "
                "listen.port, or stop what uses it."
            ) from error
        assert server is not None
        self._entity, self._server = entity, server

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def close(self) -> None:
        """Take nothing more; what is open is aborted, so that its sender knows."""
        self._entity.shutdown()

    def _store(self, event: Any) -> int:
        """The answer to C-STORE: success only once the image is on the disk."""
        self._received.pop(event.assoc, None)
        caller = "".join(filter(str.isprintable, event.assoc.requestor.ae_title)).strip()
        try:
            with self._intake.folder.spooled() as (stream, path):
                stream.write(b"\0" * 128 + b"DICM")
                write_file_meta_info(stream, event.file_meta)  # type: ignore[arg-type]
                stream.write(event.request.DataSet.getbuffer())
                stream.close()
                expected = str(event.request.AffectedSOPClassUID), str(event.request.AffectedSOPInstanceUID)
                taken = self._intake.take(path, f"ae:{caller}", expected=expected)
        except NotForUsError as error:
            _log.info("from %s: left alone: %s", caller, error)
            return SUCCESS
        except ReadError as error:
            _log.warning("from %s: refused: %s", caller, refusal(error))
            return CANNOT_UNDERSTAND
        except PacsError as error:
            _log.error("from %s: refused: %s", caller, refusal(error))
            return DOES_NOT_MATCH if error.code in _MISMATCHES else OUT_OF_RESOURCES
        except Exception as error:  # whatever comes over the network ends here
            _log.error("from %s: refused: %s", caller, refusal(error))
            return CANNOT_UNDERSTAND
        self._connections.brought(event.assoc, taken.facts.study_uid)
        _log.info(
            "study %s: image %s from %s%s.",
            key_of(taken.facts.study_uid),
            key_of(taken.facts.uid),
            caller,
            "" if taken.is_new else ", which was here already",
        )
        self._wake()
        return SUCCESS

    def _count(self, event: Any) -> None:
        received = self._received[event.assoc] = self._received.get(event.assoc, 0) + len(event.data)
        if received > self._most + MEBIBYTE:
            self._received[event.assoc] = 0
            _log.error("a connection was ended: it sent an object larger than limits.instance_mb.")
            threading.Thread(target=event.assoc.abort, daemon=True).start()  # this thread is the one that aborts

    def _released(self, event: Any) -> None:
        self._received.pop(event.assoc, None)
        self._connections.ended(event.assoc, broken=False)
        self._wake()

    def _closed(self, event: Any) -> None:
        self._received.pop(event.assoc, None)
        self._connections.ended(event.assoc, broken=not event.assoc.is_released)
        self._wake()

    @staticmethod
    def _rejected(event: Any) -> None:
        _log.warning("a connection was refused: its AE titles are not those of listen.ae_title and listen.callers.")
