"""The folder of a node: what came in, what was made of it, and the sign that somebody works in it."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import shutil
import sqlite3
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

from .problems import DiskFullError, PacsError

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class NodeFolder:
    """Files of a node, for this user only. Names come from digests, never from what was sent.

    Args:
        root: The folder; made where it is missing.
        free_bytes: Room that stays free on the disk.

    Raises:
        PacsError: It cannot be made.
    """

    def __init__(self, root: Path, free_bytes: float = 0) -> None:
        self.root, self._free = root, free_bytes
        self._lock = threading.Lock()
        self._filing: Counter[str] = Counter()
        self.incoming, self.studies, self.results = (root / name for name in ("incoming", "studies", "results"))
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)  # one that was there keeps who may look into it
            for place in (self.incoming, self.studies, self.results):
                place.mkdir(mode=0o700, exist_ok=True)
                place.chmod(0o700)
        except OSError as error:
            raise PacsError(f"{root}: cannot be used ({error.strerror}). Choose another folder.") from error
        self._owner: sqlite3.Connection | None = None

    @property
    def database(self) -> Path:
        """The file of the queue."""
        return self.root / "queue.sqlite"

    def own(self) -> None:
        """Be the only node that works in this folder, until this process ends, however it does.

        Raises:
            PacsError: Another one works in it.
        """
        path = self.root / "owner.sqlite"
        owner: sqlite3.Connection | None = None
        try:
            owner = sqlite3.connect(path, timeout=0, isolation_level=None)
            owner.execute("BEGIN EXCLUSIVE")  # a lock that every system lets go of with its process
        except sqlite3.Error as error:
            if owner is not None:
                owner.close()
            if "locked" in str(error):
                raise PacsError(f"{self.root}: another mediscan listen or poll works here. Stop it first.") from error
            raise PacsError(f"{path}: cannot be used ({error}). Delete it, or choose another folder.") from error
        self._owner = owner
        for left in self.incoming.iterdir():
            self._remove(left)

    def disown(self) -> None:
        """Let others work in it."""
        if self._owner is not None:
            self._owner.close()
            self._owner = None

    @contextmanager
    def filing(self, study_key: str) -> Iterator[None]:
        """While a file is moved to its study and not yet in the database: nothing of the study is deleted."""
        with self._lock:
            self._filing[study_key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._filing[study_key] -= 1
                if not self._filing[study_key]:
                    del self._filing[study_key]

    @contextmanager
    def clearing(self) -> Iterator[frozenset[str]]:
        """While nothing is filed: the keys of the studies in which something is being filed, to be left alone."""
        with self._lock:
            yield frozenset(self._filing)

    def put_aside(self, folder: Path) -> Path | None:
        """Take a folder out of the way at once; None where it is not there. `delete` it then."""
        aside = self.incoming / f"{folder.name}-{secrets.token_hex(4)}.gone"
        try:
            folder.replace(aside)
        except OSError:
            return None
        return aside

    @staticmethod
    def delete(folder: Path) -> None:
        """Delete a folder; what cannot be deleted now is found again at the next start."""
        shutil.rmtree(folder, ignore_errors=True)

    def _remove(self, left: Path) -> None:
        if left.is_dir() and not left.is_symlink():
            self.delete(left)
            return
        with suppress(OSError):
            left.unlink(missing_ok=True)

    @contextmanager
    def spooled(self) -> Iterator[tuple[BinaryIO, Path]]:
        """A new file for what comes in; it is gone at the end unless it was moved.

        Raises:
            DiskFullError: There is no room, or there would be too little left.
        """
        path: Path | None = None
        try:
            if shutil.disk_usage(self.root).free < self._free:
                raise DiskFullError(f"{self.root}: the disk is nearly full. Free some space, or lower limits.free_mb.")
            descriptor, name = tempfile.mkstemp(suffix=".part", dir=self.incoming)
            path = Path(name)
            with os.fdopen(descriptor, "wb") as stream:
                yield stream, path
        except OSError as error:
            raise self.explained(error) from error
        finally:
            if path is not None:
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def place(self, spooled: Path, study_key: str, uid: str, digest: str) -> str:
        """Move a file that came in to its study, so that it stays there through a power cut.

        Returns:
            Its path below the folder.

        Raises:
            DiskFullError: There is no room for its name.
            PacsError: It cannot be moved.
        """
        folder = self.studies / study_key
        relative = file_name(study_key, uid, digest)
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
            spooled.replace(self.root / relative)
            sync_folder(folder)
            sync_folder(self.studies)
        except OSError as error:
            raise self.explained(error) from error
        return relative

    def explained(self, error: OSError) -> PacsError:
        """What the system said about this folder, as one of MediScan's errors."""
        if error.errno in _NO_ROOM:
            return DiskFullError(f"{self.root}: the disk is full. Free some space.")
        return PacsError(f"{self.root}: cannot be written ({error.strerror or type(error).__name__}).")


def file_name(study_key: str, uid: str, digest: str) -> str:
    """Where an image lies, below the folder: the same content is always in the same place."""
    return f"studies/{study_key}/{key_of(uid)}-{digest[:16]}.dcm"


def key_of(uid: str) -> str:
    """A short name for a UID that tells nothing about it but stays the same: for files and for the log."""
    return blake2b(uid.encode(), digest_size=8, person=b"MediScan").hexdigest()


def content_digest(path: Path) -> str:
    """SHA-256 of a DICOM file without its meta information, which every sender writes anew."""
    with path.open("rb") as stream:
        head = stream.read(144)
        syntax = b""
        if head[128:140] == b"DICM\x02\x00\x00\x00UL\x04\x00":
            meta = stream.read(min(int.from_bytes(head[140:144], "little"), 1 << 16))
            at = meta.find(b"\x02\x00\x10\x00UI")
            if at >= 0:
                length = int.from_bytes(meta[at + 6 : at + 8], "little")
                syntax = meta[at + 8 : at + 8 + length].strip(b"\0 ")
        else:
            stream.seek(0)
        digest = hashlib.sha256(syntax + b"\0")
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make names in a folder survive a power cut, where the system lets folders be synced."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
