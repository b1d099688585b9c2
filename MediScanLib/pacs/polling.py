"""Asking DICOMweb archives for new studies: QIDO-RS and WADO-RS (PS3.18, 10.6 and 10.4)."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from ..errors import MediScanError
from .arrivals import ArrivalStore
from .backoff import wait_s
from .connections import Connections
from .facts import is_uid
from .folder import key_of
from .intake import Intake, refusal
from .multipart import boundary_of, write_part
from .problems import DiskFullError, NotForUsError, PeerError
from .settings import RetrySettings, Source
from .web_access import explained, http_error, make_client, make_session

_log = logging.getLogger("mediscan.pacs")

_STUDY_UID, _SERIES_UID, _UID = "0020000D", "0020000E", "00080018"
_INSTANCES = "00201208"  # Number of Study Related Instances
_ACCEPT = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_CHUNK = 1 << 18
_MOST_PAGES = 10_000


class _Visit:
    """A look at one study: what an association is to a node that is sent to."""


class Poller:
    """Asks one archive.

    Args:
        name: Of the source.
        source: Where it is and what is asked.
        intake: Where images go.
        connections: Hears which studies are still coming.
        retry: How long to wait after a failure.
        wake: Called after images came.

    Raises:
        PacsError: A file with a secret cannot be read.
    """

    def __init__(
        self,
        name: str,
        source: Source,
        intake: Intake,
        connections: Connections,
        retry: RetrySettings,
        wake: Callable[[], None],
    ) -> None:
        self._name, self._source, self._intake, self._connections = name, source, intake, connections
        self._retry, self._wake = retry, wake
        self._session = make_session(source)
        self._client = make_client(source, self._session)
        self._stopping = threading.Event()
        self._failures = 0
        self._thread: threading.Thread | None = None

    @property
    def _arrivals(self) -> ArrivalStore:
        return self._intake.arrivals

    def start(self) -> None:
        """Ask again and again."""
        self._thread = threading.Thread(target=self._loop, name=f"poll {self._name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ask no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(self._source.timeout_s)
        self._session.close()

    def look(self) -> int:
        """Ask once, and fetch what is new.

        Returns:
            How many images are new.

        Raises:
            PeerError: The archive cannot be reached or does not answer as it should.
            DiskFullError: There is no room.
        """
        new = 0
        for study, count in self._studies():
            if self._stopping.is_set():
                break
            if count is None or count != self._arrivals.count_seen(study):
                new += self._fetch_study(study, count)
        return new

    def _loop(self) -> None:
        while not self._stopping.is_set():
            wait = self._source.every_s
            try:
                self.look()
                self._failures = 0
            except Exception as error:  # the archive may be well again at the next look
                self._failures += 1
                wait = max(wait, wait_s(self._failures, self._retry.first_s, min(self._retry.most_s, 300.0)))
                _log.error(
                    "source %s: %s It is asked again.",
                    self._name,
                    error if isinstance(error, MediScanError) else f"a look failed ({type(error).__name__}).",
                )
                _log.debug("source %s", self._name, exc_info=error)
            self._stopping.wait(wait)

    def _studies(self) -> Iterator[tuple[str, int | None]]:
        """(StudyInstanceUID, number of its instances where it is told) of all studies that fit, each once."""
        met: set[str] = set()
        for modality in self._source.modalities or ("",):
            filters: dict[str, Any] = {"ModalitiesInStudy": modality} if modality else {}
            if self._source.days is not None:
                first = datetime.now() - timedelta(days=self._source.days)
                filters["StudyDate"] = f"{first:%Y%m%d}-"
            for page in range(_MOST_PAGES):
                with explained(self._name):
                    answer = self._client.search_for_studies(
                        limit=self._source.page,
                        offset=page * self._source.page,
                        fields=["NumberOfStudyRelatedInstances"],
                        search_filters=filters,
                    )
                    found = [(_text(item, _STUDY_UID), _number(item, _INSTANCES)) for item in answer]
                fresh = [(uid, count) for uid, count in found if is_uid(uid) and uid not in met]
                met.update(uid for uid, _ in fresh)
                yield from fresh
                if not fresh:  # the end, or an archive that knows no pages and told the same once more
                    break

    def _fetch_study(self, study: str, count: int | None) -> int:
        connection = _Visit()
        known, new = self._arrivals.known(study), 0
        broken = True
        try:
            with explained(self._name):
                answer = self._client.search_for_instances(study, fields=["Modality"])
                found = [(_text(item, _SERIES_UID), _text(item, _UID)) for item in answer]
            missing = 0
            for series, uid in found:
                if uid in known or not (is_uid(series) and is_uid(uid)) or self._arrivals.is_own(uid):
                    continue
                if self._stopping.is_set():
                    missing += 1
                    break
                fetched = self._fetch(connection, study, series, uid)
                missing += fetched is None
                new += bool(fetched)
            broken = missing > 0
        finally:
            self._connections.ended(connection, broken=broken)
            if new:
                self._wake()
        if count is not None and not broken and len(found) >= count:
            self._arrivals.set_count_seen(study, count)
        if new:
            _log.info("study %s: %d images fetched from %s.", key_of(study), new, self._name)
        return new

    def _fetch(self, connection: object, study: str, series: str, uid: str) -> bool | None:
        """Whether it is new; None where it did not come and is to be asked for again."""
        try:
            with self._intake.folder.spooled() as (stream, path):
                self._download(f"studies/{study}/series/{series}/instances/{uid}", stream)
                stream.close()
                taken = self._intake.take(path, f"web:{self._name}")
        except DiskFullError:
            raise
        except PeerError as error:
            if error.unreachable:
                raise
            _log.warning("study %s: image %s did not come: %s", key_of(study), key_of(uid), error)
            return None
        except NotForUsError as error:
            self._arrivals.leave_alone(study, uid)
            _log.info("study %s: left alone: %s", key_of(study), error)
            return False
        except MediScanError as error:
            _log.warning("study %s: image %s refused: %s", key_of(study), key_of(uid), refusal(error))
            if error.code == "cut_off":
                return None
            self._arrivals.leave_alone(study, uid)
            return False
        self._connections.brought(connection, taken.facts.study_uid)
        return taken.is_new

    def _download(self, place: str, stream: Any) -> None:
        with (
            explained(self._name),
            self._session.get(
                f"{self._source.url.rstrip('/')}/{place}",
                headers={"Accept": _ACCEPT},
                stream=True,
                timeout=self._source.timeout_s,
            ) as response,
        ):
            if response.status_code != 200:
                raise http_error(self._name, response.status_code)
            boundary = boundary_of(response.headers.get("Content-Type", ""))
            if boundary is None:
                raise ValueError("no parts")
            write_part(response.iter_content(_CHUNK), boundary, stream, self._intake.most_bytes)


def _text(item: dict[str, Any], tag: str) -> str:
    values = item.get(tag, {}).get("Value") or [""]
    return str(values[0])


def _number(item: dict[str, Any], tag: str) -> int | None:
    text = _text(item, tag)
    return int(text) if text.isdigit() else None
