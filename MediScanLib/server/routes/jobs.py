"""Endpoints for volumes and batches, which take longer than anybody waits."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import datetime, timezone
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Request
from starlette.responses import JSONResponse, Response

from ...errors import MediScanError, UsageError
from .. import problems, schemas
from ..answering import while_connected
from ..auth import Caller, HouseOf, Reader, Submitter
from ..house import House
from ..storage.job import ENDED, Failed, Job
from ..storage.studies import Stored
from ..uploads import announced_bytes, decode_each, decode_one, is_packed, read_form, read_packed
from .predict import BODY, FORM, MEDIA_TYPE, check_owner

router = APIRouter(tags=["jobs"])

Id = Annotated[str, Path(pattern="^[0-9a-f]{32}$", description="Of a job.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern="^[A-Za-z0-9_.:-]{1,64}$",
        description="Chosen by the client: the same submission again, with the same key, is the same job.",
    ),
]

_FORM: dict[str, Any] = {
    **FORM,
    "properties": {
        **{name: value for name, value in FORM["properties"].items() if name not in ("keep", "maps")},
        "kind": {
            "type": "string",
            "enum": ["series", "batch"],
            "description": "series: all files are one study. batch: each file is one.",
        },
    },
}
_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": _FORM},
            **{MEDIA_TYPE: BODY["requestBody"]["content"][MEDIA_TYPE]},
        },
    }
}


@router.post("/jobs", openapi_extra=_BODY, status_code=202, response_model=schemas.JobState)
async def submit(request: Request, house: HouseOf, caller: Submitter, key: Key = None) -> Response:
    """Submit a volume, or a batch of images. Once this answers, the job will be done even if the server is killed."""
    with house.admission(announced_bytes(request, house), house.compute.seconds_each):
        if is_packed(request):
            asked, digest = await read_packed(request, house, caller.name)
            record = asked.record.model_dump_json()
            content = [digest, record, asked.model, repr(asked.slices), asked.settings.model_dump_json()]
            fingerprint = hashlib.sha256("\n".join(content).encode()).hexdigest()
            return await _take(house, caller, [asked], "series", asked.model, fingerprint, key)
        async with read_form(request, house) as form:
            limit = house.settings.reading_time_s * (len(form.names) if form.kind == "batch" else 1) + 30

            async def decoded() -> list[Any]:
                return await decode_each(form, house) if form.kind == "batch" else [await decode_one(form, house)]

            inputs = await while_connected(request, decoded(), limit)
            return await _take(house, caller, inputs, form.kind, form.model, form.digest, key)


@router.get("/jobs")
async def listed(house: HouseOf, caller: Reader) -> schemas.JobList:
    """The newest hundred jobs of this token; of all tokens for an admin."""
    jobs = await asyncio.to_thread(house.jobs.listed, None if caller.may("admin") else caller.name)
    return schemas.JobList(jobs=[state(job) for job in jobs])


@router.get("/jobs/{identity}")
async def job_state(identity: Id, house: HouseOf, _: Reader) -> schemas.JobState:
    """How far a job is."""
    return state(await asyncio.to_thread(house.jobs.get, identity))


@router.get("/jobs/{identity}/result", response_model=schemas.JobResult)
async def result(identity: Id, house: HouseOf, caller: Reader) -> Response:
    """What became of a job that has ended; of a cancelled one, what was done before.

    The ids in it are good for heat maps and what-if.
    """

    def read() -> dict[str, Any]:
        job = house.jobs.get(identity)
        if job.state not in ENDED:
            raise UsageError("The job has not ended yet. Ask for its state.", code="not_done")
        studies = [_outcome(study) for study in house.studies.of_job(identity) if study.state != "queued"]
        house.audit.append("job.read", caller.name, {"job": identity})
        return {"job": state(job).model_dump(mode="json"), "results": studies}

    return JSONResponse(await asyncio.to_thread(read))


@router.delete("/jobs/{identity}", status_code=202)
async def cancel(identity: Id, house: HouseOf, caller: Submitter) -> schemas.JobState:
    """Stop a job; only who submitted it, or an admin. What was done before stays."""
    job = await asyncio.to_thread(house.jobs.get, identity)
    check_owner(caller, job.owner)
    return state(await asyncio.to_thread(house.jobs.cancel, identity, caller.name))


def state(job: Job) -> schemas.JobState:
    """A job for the outside."""
    error = None if job.error is None else _problem(*job.error)
    return schemas.JobState.model_validate(
        {
            "id": job.id,
            "kind": job.kind,
            "model": job.model,
            "state": job.state,
            "stage": job.stage,
            "studies": job.total,
            "studies_done": job.done,
            "slices_done": job.slices_done,
            "slices_total": job.slices_total,
            "created": _time(job.created),
            "started": _time(job.started),
            "ended": _time(job.ended),
            "expires": _time(job.expires),
            "cancelling": job.cancelling,
            "error": error,
        }
    )


async def _take(
    house: House, caller: Caller, inputs: list[Any], kind: str, model: str, fingerprint: str, key: str | None
) -> Response:
    if all(isinstance(item, Failed) for item in inputs):
        first: Failed = inputs[0]
        raise MediScanError(first.message, code=first.code)

    def submit_() -> tuple[Job, bool]:
        return house.jobs.submit(inputs, owner=caller.name, kind=kind, model=model, fingerprint=fingerprint, key=key)

    job, _ = await asyncio.to_thread(submit_)
    house.wake_runners()
    return JSONResponse(
        state(job).model_dump(mode="json"), 202, headers={"Location": f"/v1/jobs/{job.id}", "Retry-After": "1"}
    )


def _outcome(study: Stored) -> dict[str, Any]:
    error = None if study.error is None else _problem(*study.error)
    return {
        "id": study.id if study.error is None else None,
        "input": study.source,
        "prediction": study.prediction,
        "error": error,
    }


def _problem(code: str, message: str) -> dict[str, Any]:
    return problems.problem(MediScanError(message, code=code))


def _time(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
