"""From the body of a request to a study: limits first, decoding in a child, and nothing left behind."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastapi import Request as HttpRequest
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from ..errors import ClinicalError, MediScanError, UsageError
from ..prediction.exchange import Request
from ..prediction.packing import MEDIA_TYPE, Packed, unpack
from ..study.image import MedicalImage
from ..study.record import ClinicalRecord
from ..study.record_files import ClinicalRecords, read_records
from .house import House
from .storage.job import Failed

_FIELDS = ("clinical", "model", "slice", "series", "keep", "maps", "kind")
_MOST_FIELD_BYTES = 1024**2
_FILES = "files"
_LONGEST_NAME = 120


@dataclass(frozen=True)
class Form:
    """The fields of a multipart request.

    Attributes:
        records: Clinical values.
        model: Name of the bundle.
        slice_index: Slice to look at; None for all.
        series: Which DICOM series of several.
        keep: Whether the result can be asked for later.
        maps: Whether raw heat maps are in the answer.
        kind: series or batch.
        names: The files' names as the client calls them.
        folder: Where they lie, as `names_on_disk`.
        digest: Of all files and fields.
    """

    records: ClinicalRecords
    model: str
    slice_index: int | None
    series: str | None
    keep: bool
    maps: bool
    kind: str
    names: tuple[str, ...]
    folder: Path
    digest: str
    names_on_disk: tuple[str, ...] = field(default=())


def is_packed(request: HttpRequest) -> bool:
    """Whether the body is what `packing.pack` makes."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == MEDIA_TYPE


def announced_bytes(request: HttpRequest, house: House) -> int:
    """How large the body will be, at most."""
    length = request.headers.get("content-length")
    return int(length) if length is not None else house.settings.max_body_bytes


async def read_packed(request: HttpRequest, house: House, caller: str) -> tuple[Request, str]:
    """A packed study, and the digest of its pixels.

    Raises:
        MediScanError: It is not acceptable.
    """
    block = bytearray()
    async for piece in request.stream():
        block += piece

    def opened() -> tuple[Request, str]:
        packed: Packed = unpack(block, most_voxels=house.settings.max_voxels)
        house.compute.models.bundle(packed.model)
        digest = packed.head.digest
        got = packed.request(None if packed.pixels is not None else house.recent.get(caller, digest))
        house.recent.put(caller, digest, got.image.pixels)
        return got, digest

    return await asyncio.to_thread(opened)


@asynccontextmanager
async def read_form(request: HttpRequest, house: House) -> AsyncIterator[Form]:
    """The fields and files of a multipart request; the files are gone afterwards.

    Raises:
        MediScanError: A field is not acceptable, or there are too many files.
    """
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise UsageError(f"Send multipart/form-data with the part {_FILES!r}, or {MEDIA_TYPE}.", code="unsupported")
    most = house.settings.max_files
    try:
        content = await request.form(max_files=most, max_fields=len(_FIELDS) * 2, max_part_size=_MOST_FIELD_BYTES)
    except HTTPException as error:
        if "Too many files" in str(error.detail):
            raise UsageError(f"There are more than {most} files. Send fewer at once.", code="too_many_files") from None
        raise UsageError(f"The multipart body is not acceptable: {error.detail}", code="multipart") from None
    except (ClientDisconnect, MediScanError):
        raise
    except Exception as error:  # whatever a damaged body does to the parser
        raise UsageError(
            f"The multipart body is damaged ({type(error).__name__}). Send it again.", code="multipart"
        ) from None
    try:
        with house.folder() as folder:
            yield await asyncio.to_thread(_form, content, house, folder)
    finally:
        await content.close()


def _form(content: FormData, house: House, folder: Path) -> Form:
    fields: dict[str, str] = {}
    uploads: list[UploadFile] = []
    for name, value in content.multi_items():
        if name == _FILES and isinstance(value, UploadFile):
            uploads.append(value)
        elif name in _FIELDS and isinstance(value, str):
            if name in fields:
                raise UsageError(f"{name}: stands twice. Send it once.")
            fields[name] = value
        elif name in _FIELDS or name == _FILES:
            kind = "a file" if name == _FILES else "text without a file name"
            raise UsageError(f"{name}: is {kind}, and was sent as something else.")
        else:
            known = ", ".join((_FILES, *_FIELDS))
            raise UsageError(f"{name[:100]!r}: is no field of this request. There are: {known}.")
    if not uploads:
        raise UsageError(f"There is no file. Send at least one as the part {_FILES!r}.")
    clinical = fields.get("clinical", "")
    if clinical.strip() and clinical.strip()[:1] not in ("{", "["):  # a path would be looked for on this machine
        raise ClinicalError("clinical: is not a JSON object or list.")
    digest = hashlib.sha256(json.dumps(sorted(fields.items())).encode())
    on_disk = []
    for number, upload in enumerate(uploads):
        place = folder / "files" / f"{number + 1:05}"
        with place.open("wb") as stream:
            shutil.copyfileobj(upload.file, stream, 1 << 20)
        upload.file.close()
        digest.update(_sha(place))
        on_disk.append(place.name)
    kind = fields.get("kind", "series")
    if kind not in ("series", "batch"):
        raise UsageError(f"kind: {kind[:100]!r} is neither series nor batch.")
    model = fields.get("model") or house.compute.models.default
    house.compute.models.bundle(model)
    return Form(
        records=read_records(clinical) if clinical.strip() else ClinicalRecords(),
        model=model,
        slice_index=_slice(fields.get("slice", "all")),
        series=fields.get("series") or None,
        keep=_flag("keep", fields.get("keep", "true")),
        maps=_flag("maps", fields.get("maps", "false")),
        kind=kind,
        names=tuple(_name(upload.filename) for upload in uploads),
        folder=folder,
        digest=digest.hexdigest(),
        names_on_disk=tuple(on_disk),
    )


async def decode_one(form: Form, house: House) -> Request:
    """All files of a form as one study.

    Raises:
        MediScanError: It cannot be read, or a value is not acceptable.
    """
    single = len(form.names) == 1
    name = form.names[0] if single else "the upload"
    image = await _decode(form, house, form.names_on_disk[0] if single else None, name)
    return _request(form, house, image, form.records.of(name))


async def decode_each(form: Form, house: House) -> list[Request | Failed]:
    """Each file of a form as a study of its own; one that cannot be read does not stop the others."""

    async def one(name: str, file: str) -> Request | Failed:
        try:
            return _request(form, house, await _decode(form, house, file, name), form.records.of(name))
        except MediScanError as error:
            return Failed(name, error.code, str(error))

    return list(await asyncio.gather(*(one(*pair) for pair in zip(form.names, form.names_on_disk, strict=True))))


def with_record(request: Request, clinical: dict[str, Any]) -> Request:
    """The same image with another record.

    Raises:
        ClinicalError: A value is not acceptable.
    """
    return replace(request, record=ClinicalRecord.model_validate(clinical))


async def _decode(form: Form, house: House, file: str | None, name: str) -> MedicalImage:
    started = time.perf_counter()
    folder = form.folder
    if file is not None and len(form.names) > 1:  # of its own, since the result lies beside the files
        folder = form.folder / f"one-{file}"
        (folder / "files").mkdir(parents=True)
        (form.folder / "files" / file).rename(folder / "files" / file)
    image = await house.readers.read(folder, file, form.series, name)
    house.metrics.decoding.observe(time.perf_counter() - started)
    return image


def _request(form: Form, house: House, image: MedicalImage, record: ClinicalRecord) -> Request:
    if form.slice_index is not None and form.slice_index >= image.shape[0]:
        raise UsageError(
            f"{image.source}: there is no slice {form.slice_index}; it has {image.shape[0]}, counted from 0."
        )
    return Request(
        image=image,
        record=record,
        model=form.model,
        slices=None if form.slice_index is None or image.shape[0] == 1 else [form.slice_index],
        settings=house.compute.models.inference,
    )


def _slice(text: str) -> int | None:
    if text == "all":
        return None
    if text.isascii() and text.isdigit() and len(text) < 10:
        return int(text)
    raise UsageError(f"slice: takes a number counted from 0, or all, not {text[:100]!r}.")


def _flag(name: str, text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise UsageError(f"{name}: is true or false, not {text[:100]!r}.")


def _name(name: str | None) -> str:
    """The client's name for a file, without folders and without what would steer a terminal."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    shown = "".join(letter if letter.isprintable() else "?" for letter in last)[:_LONGEST_NAME]
    return shown.encode("utf-8", "replace").decode("utf-8") or "upload"


def _sha(path: Path) -> bytes:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(1 << 20):
            digest.update(piece)
    return digest.digest()
