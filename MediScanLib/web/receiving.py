"""Uploads on their way to the disk: limits of size, number and time hold while they come in."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import BodyPartReader, web

from ..errors import MediScanError, UsageError
from .settings import UserSettings

_PIECE = 1 << 18
_LONGEST_NAME = 120


@asynccontextmanager
async def received(request: web.Request, settings: UserSettings) -> AsyncIterator[tuple[Path, list[str]]]:
    """A folder that holds the files as `files/00001`..., and the browser's names for them; it is gone afterwards.

    Args:
        request: multipart/form-data with parts called `files`.
        settings: Limits.

    Raises:
        MediScanError: It is more than is allowed, or damaged.
    """
    folder = Path(tempfile.mkdtemp(prefix="upload-", dir=settings.folder))
    try:
        (folder / "files").mkdir()
        try:
            names = await asyncio.wait_for(_write(request, folder / "files", settings), settings.upload_time_s)
        except asyncio.TimeoutError:
            raise UsageError(
                f"The files took longer than {settings.upload_time_s:g} s to arrive. Send fewer or smaller ones.",
                code="slow_upload",
            ) from None
        except (ValueError, AssertionError) as error:
            raise UsageError("The upload was damaged on its way. Send it again.", code="multipart") from error
        if not names:
            raise UsageError("There is no file. Choose at least one.")
        yield folder, names
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, True)


async def _write(request: web.Request, folder: Path, settings: UserSettings) -> list[str]:
    if not request.content_type.startswith("multipart/"):
        raise UsageError("Files are sent as multipart/form-data.", code="unsupported")
    names: list[str] = []
    size = 0
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        if not isinstance(part, BodyPartReader) or part.name != "files":
            continue
        if len(names) >= settings.max_files:
            raise UsageError(
                f"There are more than {settings.max_files} files. Send fewer at once.", code="too_many_files"
            )
        names.append(shown_name(part.filename))
        with (folder / f"{len(names):05}").open("wb") as stream:
            while piece := await part.read_chunk(_PIECE):
                size += len(piece)
                if size > settings.max_body_bytes:
                    raise MediScanError(
                        f"This is larger than the {settings.max_body_bytes // 1024**2} MB that are allowed here. "
                        "Send less.",
                        code="too_large",
                    )
                stream.write(piece)
    return names


def shown_name(name: str | None) -> str:
    """The browser's name for a file, without folders and without what does not show."""
    last = (name or "").replace("\\", "/").rpartition("/")[2]
    shown = "".join(letter if letter.isprintable() else "?" for letter in last)[:_LONGEST_NAME]
    return shown.encode("utf-8", "replace").decode("utf-8") or "upload"
