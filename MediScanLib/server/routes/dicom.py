"""A prediction as DICOM objects in the study of its images."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response, StreamingResponse

from ...errors import UsageError
from ...prediction.exchange import write_answer
from ...prediction.result import Prediction
from ..answering import while_connected
from ..auth import HouseOf, Submitter
from ..house import House
from ..uploads import Form, announced_bytes, read_form
from .predict import Id

router = APIRouter(tags=["predictions"])

_CHUNK = 1 << 18
_FORM: dict[str, Any] = {
    "type": "object",
    "required": ["files"],
    "properties": {
        "files": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "minItems": 1,
            "description": "The DICOM files that were predicted, once more: the server keeps no headers.",
        }
    },
    "additionalProperties": False,
}


@router.post(
    "/predictions/{identity}/dicom",
    response_class=Response,
    responses={200: {"content": {"multipart/related": {}}, "description": "Parts of application/dicom (PS3.18)."}},
    openapi_extra={"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM}}}},
)
async def dicom_results(identity: Id, request: Request, house: HouseOf, _: Submitter) -> Response:
    """The heat maps of a prediction as Segmentation, Parametric Map and Secondary Capture, with a structured report.

    The server keeps pixels and hashed identifiers, no headers. So the files come along once more, and are refused
    where they are not those of the prediction. Nothing of them stays.
    """
    with house.admission(announced_bytes(request, house), house.compute.seconds_each):
        prediction = await asyncio.to_thread(house.studies.prediction, identity)
        if not prediction.image.identifiers:
            raise UsageError(
                "This prediction was made from an image without DICOM identifiers, so nothing shows that the files "
                "are its own. Predict the DICOM files.",
                code="not_dicom",
            )
        async with read_form(request, house) as form:
            limit = house.settings.reading_time_s + house.settings.request_time_s
            return await while_connected(request, _made(form, house, prediction), limit)


async def _made(form: Form, house: House, prediction: Prediction) -> Response:
    await asyncio.to_thread(write_answer, prediction, form.folder)
    names = await house.results.make(form.folder, form.names_on_disk)
    parts = await asyncio.to_thread(lambda: [(form.folder / "results" / name).read_bytes() for name in names])
    boundary = secrets.token_hex(16)
    kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
    return StreamingResponse(_body(names, parts, boundary), media_type=kind)


def _body(names: list[str], parts: list[bytes], boundary: str) -> Iterator[bytes]:
    for name, part in zip(names, parts, strict=True):
        quoted = Path(name).name.encode("ascii", "replace").decode().replace('"', "")
        head = (
            f'--{boundary}\r\nContent-Type: application/dicom\r\nContent-Disposition: attachment; filename="{quoted}"'
        )
        yield head.encode() + b"\r\n\r\n"
        for start in range(0, len(part), _CHUNK):
            yield part[start : start + _CHUNK]
        yield b"\r\n"
    yield f"--{boundary}--\r\n".encode()
