"""Studies that are kept for a while: what was asked, the pixels, and the prediction with its maps."""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from ...prediction.exchange import Request
from ...prediction.heatmaps import HeatMaps
from ...prediction.packing import pack, unpack
from ...prediction.result import Prediction
from ...study.image import MedicalImage
from ..problems import MissingError
from .database import Database
from .tables import chunks, jobs, studies

CHUNK_BYTES = 4 * 1024**2


@dataclass(frozen=True)
class Stored:
    """A study without its pixels.

    Attributes:
        id: Random; who has it may look.
        job: It belongs to; None where it was answered at once.
        number: Its place in the job, from 0.
        owner: Name of the token that asked.
        state: queued, done or failed.
        expires: Seconds since 1970.
        source: As the client named it.
        prediction: Without maps; None unless it is done.
        error: (code, message) where it failed.
    """

    id: str
    job: str | None
    number: int
    owner: str
    state: str
    expires: float
    source: str
    prediction: dict[str, Any] | None
    error: tuple[str, str] | None


class StudyStore:
    """Keeps and finds studies.

    Args:
        database: Where they lie.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def keep(self, request: Request, prediction: Prediction, owner: str, keep_s: float) -> str:
        """Keep a study that was answered at once; its id."""
        with self._database.writing() as connection:
            identity = put_study(connection, request, owner=owner, expires=time.time() + keep_s, state="done")
            put_prediction(connection, identity, prediction)
        return identity

    def get(self, identity: str) -> Stored:
        """A study.

        Raises:
            MissingError: There is none of that id, or it has expired.
        """
        with self._database.reading() as connection:
            row = connection.execute(_COLUMNS.where(studies.c.id == identity, _fresh())).first()
        if row is None:
            raise _missing()
        return _stored(row)

    def of_job(self, job: str) -> list[Stored]:
        """The studies of a job in their order."""
        with self._database.reading() as connection:
            rows = connection.execute(_COLUMNS.where(studies.c.job == job).order_by(studies.c.number)).all()
        return [_stored(row) for row in rows]

    def request(self, identity: str) -> Request:
        """What was asked, with the pixels.

        Raises:
            MissingError: There is none of that id, or it has expired.
        """
        with self._database.reading() as connection:
            row = connection.execute(
                select(studies.c.head, studies.c.source, studies.c.facts).where(studies.c.id == identity, _fresh())
            ).first()
            if row is None:
                raise _missing()
            pieces = connection.execute(
                select(chunks.c.data).where(chunks.c.study == identity).order_by(chunks.c.number)
            )
            block = bytearray(row.head)
            for piece in pieces:
                block += piece.data
        request = unpack(block).request()
        return _with_facts(request, row.source, json.loads(row.facts))

    def prediction(self, identity: str) -> Prediction:
        """What was said, with its maps.

        Raises:
            MissingError: There is none of that id, it has expired, or it is not done.
        """
        with self._database.reading() as connection:
            row = connection.execute(
                select(studies.c.prediction, studies.c.maps).where(studies.c.id == identity, _fresh())
            ).first()
        if row is None or row.prediction is None:
            raise _missing()
        prediction = Prediction.from_json(row.prediction)
        return prediction if row.maps is None else prediction.with_maps(HeatMaps.from_json(row.maps))

    def forget(self, identity: str) -> None:
        """Remove a study that belongs to no job.

        Raises:
            MissingError: There is none of that id.
        """
        with self._database.writing() as connection:
            done = connection.execute(delete(studies).where(studies.c.id == identity, studies.c.job.is_(None)))
            if not done.rowcount:
                raise _missing()

    def expire(self) -> int:
        """Remove what has expired; how many studies and jobs."""
        now = time.time()
        with self._database.writing() as connection:
            gone = connection.execute(delete(studies).where(studies.c.job.is_(None), studies.c.expires < now))
            ended = jobs.c.state.in_(("done", "failed", "cancelled"))
            gone_jobs = connection.execute(delete(jobs).where(ended, jobs.c.expires < now))
        return gone.rowcount + gone_jobs.rowcount


_COLUMNS = select(
    studies.c.id,
    studies.c.job,
    studies.c.number,
    studies.c.owner,
    studies.c.state,
    studies.c.expires,
    studies.c.source,
    studies.c.prediction,
    studies.c.error_code,
    studies.c.error_message,
)


def put_study(
    connection: Connection,
    request: Request,
    *,
    owner: str,
    expires: float,
    state: str,
    job: str | None = None,
    number: int = 0,
) -> str:
    """Write what is asked within a transaction; the new id."""
    identity = secrets.token_hex(16)
    head, pixels = pack(request)
    image = request.image
    facts = {"identifiers": dict(image.identifiers), "warnings": list(image.warnings)}
    connection.execute(
        insert(studies).values(
            id=identity,
            job=job,
            number=number,
            owner=owner,
            state=state,
            created=time.time(),
            expires=expires,
            source=_text(image.source),
            facts=json.dumps(facts),
            head=head,
        )
    )
    for position, start in enumerate(range(0, len(pixels), CHUNK_BYTES)):
        data = bytes(pixels[start : start + CHUNK_BYTES])
        connection.execute(insert(chunks).values(study=identity, number=position, data=data))
    return identity


def put_failure(
    connection: Connection, source: str, code: str, message: str, *, owner: str, expires: float, job: str, number: int
) -> None:
    """Write that one input of a job could not be read."""
    connection.execute(
        insert(studies).values(
            id=secrets.token_hex(16),
            job=job,
            number=number,
            owner=owner,
            state="failed",
            created=time.time(),
            expires=expires,
            source=_text(source),
            facts="{}",
            head=b"",
            error_code=code,
            error_message=_text(message),
        )
    )


def put_prediction(connection: Connection, identity: str, prediction: Prediction) -> None:
    """Write what was said, within a transaction."""
    maps = None if prediction.maps is None else prediction.maps.to_json()
    connection.execute(
        update(studies)
        .where(studies.c.id == identity)
        .values(state="done", prediction=prediction.to_json(), maps=maps)
    )


def _with_facts(request: Request, source: str, facts: dict[str, Any]) -> Request:
    image: MedicalImage = request.image
    whole = MedicalImage(
        **{
            **image.__dict__,
            "source": source,
            "identifiers": facts["identifiers"],
            "warnings": tuple(facts["warnings"]),
        }
    )
    return Request(whole, request.record, request.model, request.device, request.slices, request.settings)


def _stored(row: Any) -> Stored:
    return Stored(
        id=row.id,
        job=row.job,
        number=row.number,
        owner=row.owner,
        state=row.state,
        expires=row.expires,
        source=row.source,
        prediction=None if row.prediction is None else json.loads(row.prediction),
        error=None if row.error_code is None else (row.error_code, row.error_message or ""),
    )


def _fresh() -> Any:
    return studies.c.expires >= time.time()


def _missing() -> MissingError:
    return MissingError("There is no prediction of that id here, or not any more. Ask for it again.")


def _text(text: str) -> str:
    """Text that PostgreSQL takes: no null characters, nothing that UTF-8 cannot say."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
