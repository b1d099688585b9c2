"""What stands between a file from outside and the decoders: sources, memory bounds, errors, finite values."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import MediScanError, ReadError

DEFAULT_MEMORY_LIMIT = 4 * 1024**3
"""Bytes that reading one image may need at its peak, unless the caller says otherwise."""

GIBIBYTE = 1024**3


@dataclass(frozen=True)
class Source:
    """A readable file or a block of bytes, under the name that the user gave it.

    Attributes:
        name: Stands in every error and warning.
        size: Bytes.
        path: The file; None for bytes.
        data: The bytes; None for a file.
    """

    name: str
    size: int
    path: Path | None = None
    data: bytes | None = None

    def open(self) -> BinaryIO:
        """A binary stream at the start of the content.

        Raises:
            ReadError: The file cannot be opened (any more).
        """
        if self.data is not None:
            return io.BytesIO(self.data)
        assert self.path is not None
        try:
            return self.path.open("rb")
        except OSError as error:
            raise os_error(self.name, error) from None

    def head(self, length: int) -> bytes:
        """The first `length` bytes, fewer if there are fewer."""
        with self.open() as stream:
            return stream.read(length)


def os_error(name: object, error: OSError) -> ReadError:
    """The `ReadError` for what the operating system said about a path."""
    if error.errno == errno.ELOOP:
        return ReadError(name, "is a symbolic link that leads back to itself", "Mend the link.", code="symlink_loop")
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return ReadError(name, "does not exist", "Check the path.", code="not_found")
    if isinstance(error, PermissionError):
        return ReadError(
            name, "may not be read by this user", "Change its permissions or copy it.", code="permission_denied"
        )
    return ReadError(name, f"cannot be opened ({error.strerror or type(error).__name__})", "Check disk and path.")


def status(path: Path, name: object) -> os.stat_result:
    """`os.stat` that follows links and raises `ReadError`."""
    try:
        return path.stat()
    except OSError as error:
        raise os_error(name, error) from None
    except ValueError:  # an embedded null character
        raise ReadError(name, "is not a path", "Check the path.", code="not_found") from None


def file_source(path: Path, name: str | None = None) -> Source:
    """A regular, non-empty file as a source.

    Raises:
        ReadError: not_found, permission_denied, symlink_loop, empty, or not_an_image for pipes and devices.
    """
    name = name or str(path)
    found = status(path, name)
    if not stat.S_ISREG(found.st_mode):
        raise ReadError(name, "is a pipe, a socket or a device", "Give a regular file.", code="not_an_image")
    if found.st_size == 0:
        raise ReadError(name, "is an empty file", "Copy or export it again.", code="empty")
    return Source(name, found.st_size, path=path)


def bytes_source(data: bytes, name: str | None = None) -> Source:
    """Bytes as a source.

    Raises:
        ReadError: empty.
    """
    name = name or "bytes"
    if not data:
        raise ReadError(name, "holds no bytes", "Send the content of a file.", code="empty")
    return Source(name, len(data), data=bytes(data))


def available_memory() -> int | None:
    """Bytes that the machine can still give, None where the system does not tell."""
    if sys.platform == "linux":
        try:
            with Path("/proc/meminfo").open(encoding="ascii") as lines:
                return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
        except (OSError, StopIteration, ValueError):
            return None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:  # macOS tells the total only
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def check_memory(name: object, needed: int, limit: int) -> None:
    """Refuse before anything is decoded.

    Args:
        name: File.
        needed: Bytes at the peak.
        limit: Bytes the caller allows.

    Raises:
        ReadError: too_large.
    """
    free = available_memory()
    bound, whose = (limit, "allowed") if free is None or limit <= free else (free, "free on this machine")
    if needed > bound:
        raise ReadError(
            name,
            f"would need {needed / GIBIBYTE:.2f} GiB of memory, {bound / GIBIBYTE:.2f} GiB are {whose}",
            "Crop or resample it, or raise memory_limit_bytes if the file is genuine.",
            code="too_large",
        )


@contextmanager
def reported(name: object, action: str) -> Iterator[None]:
    """Turn whatever a parser raises on damaged input into a `ReadError`.

    The parser's own text is dropped on purpose: it may quote header values, and those may name the patient.
    """
    try:
        yield
    except MediScanError:
        raise
    except RecursionError:
        raise ReadError(
            name, "is nested deeper than any honest file", "Do not use this file.", code="too_deep"
        ) from None
    except MemoryError:
        raise ReadError(
            name, f"needed more memory than there is while {action}", "Crop or resample it.", code="too_large"
        ) from None
    except EOFError:
        raise ReadError(name, f"ended while {action}", "Copy or export it again.", code="truncated") from None
    except OSError as error:
        if error.errno is not None:
            raise os_error(name, error) from None
        raise ReadError(name, f"is damaged ({action} failed)", "Copy or export it again.", code="corrupt") from None
    except Exception as error:
        raise ReadError(
            name, f"is damaged ({action} failed: {type(error).__name__})", "Copy or export it again.", code="corrupt"
        ) from None


class BoundedInflater:
    """Decompresses a zlib, raw deflate or gzip stream piece by piece, never more than asked for.

    Args:
        stream: Positioned at the compressed data.
        name: File, for errors.
        wbits: As for `zlib.decompressobj`: -15 raw deflate, 31 gzip.
    """

    _CHUNK = 1 << 16

    def __init__(self, stream: BinaryIO, name: object, wbits: int) -> None:
        self._stream = stream
        self._name = name
        self._wbits = wbits
        self._inflater = zlib.decompressobj(wbits)

    def read(self, length: int) -> bytes:
        """At most `length` bytes; fewer only at the end of the stream.

        Raises:
            ReadError: corrupt or truncated.
        """
        pieces: list[bytes] = []
        missing = length
        while missing > 0:
            if self._inflater.eof:
                rest = self._inflater.unused_data or self._stream.read(self._CHUNK)
                if self._wbits != 31 or not rest.startswith(b"\x1f\x8b"):  # gzip may hold several members
                    break
                self._inflater = zlib.decompressobj(self._wbits)
                compressed = rest
            else:
                compressed = self._inflater.unconsumed_tail or self._stream.read(self._CHUNK)
            try:
                piece = self._inflater.decompress(compressed, missing)
            except zlib.error:
                raise ReadError(
                    self._name, "holds damaged compressed data", "Copy or export it again.", code="corrupt"
                ) from None
            if not compressed and not piece:
                raise ReadError(
                    self._name, "ends inside its compressed data", "Copy or export it again.", code="truncated"
                )
            pieces.append(piece)
            missing -= len(piece)
        return b"".join(pieces)


def finite_float32(pixels: npt.NDArray, name: object) -> tuple[npt.NDArray[np.float32], tuple[str, ...]]:
    """Float32 pixels without NaN and infinity, and a warning where some were replaced.

    NaN and minus infinity become the smallest finite value, plus infinity the largest.

    Raises:
        ReadError: not_finite where nothing is finite.
    """
    if pixels.dtype.kind not in "fc":
        return pixels.astype(np.float32), ()
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinity and is then dealt with
        pixels = pixels.astype(np.float32)
    good = np.isfinite(pixels)
    if good.all():
        return pixels, ()
    if not good.any():
        raise ReadError(name, "holds nothing but NaN or infinity", "Export the image again.", code="not_finite")
    low, high = float(pixels[good].min()), float(pixels[good].max())
    count = int(good.size - np.count_nonzero(good))
    np.nan_to_num(pixels, copy=False, nan=low, posinf=high, neginf=low)
    share = 100 * count / good.size
    return pixels, (f"{count} pixels ({share:.2g} %) were NaN or infinite and were replaced by finite values.",)
