"""What a .zip file of a model may look like: a card, the files that the card lists, and nothing else."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ..errors import BundleError
from .bundle import CARD_FILE, MAX_CARD_BYTES

MAX_FILES = 32
MAX_DIRECTORY_BYTES = 1 << 16

_END = struct.Struct("<4s4H2LH")
_LOCATOR_BYTES = 20
_BLOCK = 1 << 20


def unpack(
    source: str,
    archive: Path | IO[bytes],
    folder: Path,
    check: Callable[[bytes, int], list[str]],
    report: Callable[[int, int], object],
) -> None:
    """Unpack a model into an empty folder.

    Args:
        source: Names the archive in errors.
        archive: The .zip file.
        folder: Where the files go.
        check: Called with the card as bytes and the bytes of all files together, before anything else is unpacked;
            stores the card, raises where it does not like what it sees, and returns the names of the other files.
        report: Called with how many bytes of how many are unpacked; may raise to stop.

    Raises:
        BundleError: The archive is damaged, or holds something else than a model.
    """
    try:
        if isinstance(archive, Path):
            with archive.open("rb") as stream:
                _unpack(source, stream, folder, check, report)
        else:
            _unpack(source, archive, folder, check, report)
    # encrypted entries and unknown versions are a RuntimeError and NotImplementedError, a broken name is none of UTF-8
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, struct.error, UnicodeError) as error:
        raise BundleError(f"{source}: is no whole .zip file ({error}). Get it again.") from error


def _unpack(
    source: str,
    stream: IO[bytes],
    folder: Path,
    check: Callable[[bytes, int], list[str]],
    report: Callable[[int, int], object],
) -> None:
    _check_end(source, stream)
    with zipfile.ZipFile(stream) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise BundleError(f"{source}: holds several files of one name. Get it again.")
        for entry in entries.values():
            _check_entry(source, entry)
        card = entries.get(CARD_FILE)
        if card is None:
            raise BundleError(f"{source}: is no MediScan model, it holds no {CARD_FILE}.")
        if card.file_size > MAX_CARD_BYTES:
            raise BundleError(f"{source}: {card.file_size} bytes are too many for a card (at most {MAX_CARD_BYTES}).")
        total = sum(entry.file_size for entry in entries.values())
        listed = check(archive.read(card), total)
        others = set(entries) - {CARD_FILE}
        if missing := sorted(set(listed) - others):
            raise BundleError(f"{source}: {missing[0]} is missing. Get it again.")
        if more := sorted(others - set(listed)):
            raise BundleError(f"{source}: {more[0]!r} is no file that the card lists. Nothing else may be in it.")
        done = card.file_size
        for name in listed:
            with archive.open(entries[name]) as packed, (folder / name).open("xb") as file:
                while block := packed.read(_BLOCK):
                    done += len(block)
                    if done > total:
                        raise BundleError(f"{source}: {name} is longer than the archive says. Get it again.")
                    report(done, total)
                    file.write(block)


def _check_end(source: str, stream: IO[bytes]) -> None:
    """Look at the directory's size before zipfile reads all of it into the memory."""
    size = stream.seek(0, 2)
    if size < _END.size:
        raise BundleError(f"{source}: is no .zip file.")
    stream.seek(max(0, size - _END.size - _LOCATOR_BYTES))
    tail = stream.read()
    magic, _, _, _, count, length, _, comment = _END.unpack(tail[-_END.size :])
    if magic != b"PK\x05\x06" or comment:
        raise BundleError(
            f"{source}: is no whole .zip file, or one with a comment. Pack it by `mediscan models export`."
        )
    if count > MAX_FILES or length > MAX_DIRECTORY_BYTES or tail[:4] == b"PK\x06\x07":
        raise BundleError(f"{source}: holds too many files for a model (at most {MAX_FILES}).")
    stream.seek(0)


def _check_entry(source: str, entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    if entry.orig_filename != name or "/" in name or "\\" in name or ":" in name or name in ("", ".", ".."):
        raise BundleError(
            f"{source}: {name!r} lies in a folder, but card and weights must lie at the top of the archive. Pack "
            "it by `mediscan models export`."
        )
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG) or entry.is_dir():
        raise BundleError(f"{source}: {name!r} is a link or something else that is no plain file. Get it again.")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise BundleError(f"{source}: {name!r} is compressed in an unusual way. Pack it by `mediscan models export`.")
