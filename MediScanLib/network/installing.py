"""Models that a user adds and removes: all is checked before anything is installed, and nothing is executed."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import BundleError, CancelledError, MediScanError, UsageError, WriteError
from ..progress import Progress, SilentProgress
from ..writing import atomic_write
from .archive import unpack
from .bundle import (
    CARD_FILE,
    WEIGHTS_FILE,
    Bundle,
    bundle_folders,
    delete_folder,
    file_sha256,
    load_bundle,
    read_card,
    replace_folder,
    search_path,
    user_models_folder,
)
from .card import Card
from .download import download

MAX_MODEL_BYTES = 1 << 30
"""Of an archive, and of what is in it; four times the largest network that can be built."""

TIMEOUT_S = 30.0
SPARE_BYTES = 64 << 20
STALE_S = 24 * 3600

_SCRATCH = ".adding-"
_BLOCK = 1 << 20
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_HEX = re.compile(r"[0-9a-f]{64}")


def add_model(
    source: str | Path,
    sha256: str | None = None,
    progress: Progress | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
    check_weights: bool = True,
) -> Bundle:
    """Install a model for this user, in `user_models_folder()`.

    An installed model of that name is replaced once the new one is complete and checked. Whatever goes wrong leaves
    everything as it was.

    Args:
        source: Folder of a bundle, .zip file of one, or http(s) address of such a file.
        sha256: SHA-256 of the .zip file as hexadecimal text; an address needs it.
        progress: Hears of stages "download" and "unpack" in bytes, and may cancel.
        timeout_s: Longest silence of a server, in seconds; a server that trickles is given up too.
        check_weights: Whether the network is built to see that the weights fit it, which loads PyTorch. Without it,
            that is found out at the first use.

    Raises:
        UsageError: The source or the hash is none.
        BundleError: The server does not deliver, or what came is damaged, too large or not a model.
        WriteError: The disk is full, or the user's folder cannot be written.
        CancelledError: The user cancelled.
    """
    progress = progress or SilentProgress()
    expected = _parsed_sha256(sha256)
    url = str(source) if isinstance(source, str) and _URL.match(source) else None
    if url is not None and not url.lower().startswith(("http://", "https://")):
        raise UsageError(f"{url}: models are fetched by http and https only. Give a path for a file of this machine.")
    if url is not None and expected is None:
        raise UsageError(
            f"{url}: what comes over the network is installed only if its SHA-256 is known. Ask whoever offers the "
            "model for that of the .zip file."
        )
    parent = user_models_folder()
    try:
        parent.mkdir(parents=True, exist_ok=True)
        _sweep(parent)
        scratch = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=parent))
        try:
            folder = scratch / "model"
            folder.mkdir()
            if url is not None:
                file = scratch / "download.zip"
                assert expected is not None
                download(
                    url,
                    file,
                    expected,
                    progress,
                    max_bytes=MAX_MODEL_BYTES,
                    timeout_s=timeout_s,
                    require_space=lambda needed: _require_space(scratch, needed),
                )
                _unpack(url, file, folder, progress)
            else:
                _take(Path(source), expected, folder, progress)
            return _install(str(source), folder, parent, check_weights=check_weights)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    except OSError as error:
        raise WriteError(
            f"{parent}: the model cannot be written there ({error.strerror or error}). Free some space, or make the "
            "folder writable. Nothing was installed."
        ) from error


def remove_model(name: str) -> None:
    """Delete a model that the user has added; also a damaged one.

    Args:
        name: Name of its folder, as `mediscan models list` gives it.

    Raises:
        UsageError: There is no such model, or it is none of the user's own.
        WriteError: The folder cannot be deleted.
    """
    parent = user_models_folder()
    plain = Path(name).name == name and not name.startswith(".")
    folder = parent / name
    if not plain or not (folder / CARD_FILE).is_file():
        elsewhere = next((found for found in bundle_folders() if found.name == name), None)
        if elsewhere is not None and os.path.realpath(elsewhere.parent) != os.path.realpath(parent):
            shipped = elsewhere.parent in search_path()[-2:]
            why = "came with MediScan and stays" if shipped else "is none that was added; delete its folder yourself"
            raise UsageError(f"{name}: this model {why} ({elsewhere}). Only models of {parent} are removed.")
        raise UsageError(f"{name}: no such model in {parent}. `mediscan models list` tells what there is.")
    gone = parent / f"{_SCRATCH}{secrets.token_hex(8)}"
    try:
        folder.rename(gone)  # out of sight as a whole, before its first file goes
    except OSError as error:
        raise WriteError(f"{folder}: cannot be deleted ({error.strerror}). Close what uses the model.") from error
    delete_folder(gone)


def export_model(name: str | Path, path: Path) -> str:
    """Pack a model for others as a .zip file that `add_model` takes; the same model gives the same bytes.

    Args:
        name: Name or folder of a bundle.
        path: File to write.

    Returns:
        SHA-256 of the file, for those who fetch it.

    Raises:
        BundleError: There is no such model, or it is damaged.
        UsageError: The file does not end in .zip.
        WriteError: The file cannot be written.
    """
    if path.suffix.lower() != ".zip":
        raise UsageError(f"{path}: a model is packed as .zip. Give a name with that ending.")
    bundle = load_bundle(name)
    with (
        atomic_write(path) as stream,
        # stored: weights hardly shrink, and compressors differ from machine to machine
        zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive,
    ):
        for member in (CARD_FILE, *sorted(bundle.card.files)):
            entry = zipfile.ZipInfo(member, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o100644 << 16
            entry.file_size = (bundle.folder / member).stat().st_size
            with (bundle.folder / member).open("rb") as content, archive.open(entry, "w") as packed:
                shutil.copyfileobj(content, packed, _BLOCK)
    return file_sha256(path)


@dataclass(frozen=True)
class Checked:
    """What became of the check of one model.

    Attributes:
        name: As it was asked for.
        bundle: None where it is damaged.
        error: What is wrong with it; None where nothing is.
    """

    name: str
    bundle: Bundle | None
    error: MediScanError | None


def verify_models(names: Sequence[str] = ()) -> Iterator[Checked]:
    """Check card, hashes and weights of the models named, or of all in the search path; loads PyTorch."""
    for name in names or [str(folder) for folder in bundle_folders()]:
        try:
            bundle = load_bundle(name)
            bundle.load_cases(bundle.load_network())
        except MediScanError as error:
            yield Checked(name, None, error)
        else:
            yield Checked(name, bundle, None)


def _parsed_sha256(text: str | None) -> str | None:
    if text is None:
        return None
    plain = text.strip().lower().removeprefix("sha256:").strip()
    if not _HEX.fullmatch(plain):
        raise UsageError(f"{text!r} is no SHA-256: that has 64 digits from 0 to 9 and a to f.")
    return plain


def _take(source: Path, expected: str | None, folder: Path, progress: Progress) -> None:
    """Bring what lies on this machine into `folder`."""
    if source.is_dir():
        if expected is not None:
            raise UsageError(f"{source}: is a folder, which has no SHA-256; the card holds those of its files.")
        _copy_files(source, folder, progress)
        return
    try:
        stream = source.open("rb")
    except FileNotFoundError as error:
        raise UsageError(
            f"{source}: is not there. Give the folder, the .zip file or the address of a model."
        ) from error
    except OSError as error:
        raise UsageError(f"{source}: cannot be read ({error.strerror}).") from error
    with stream:  # one stream: what is hashed is what is unpacked
        _check_size(str(source), os.fstat(stream.fileno()).st_size)
        if expected is not None:
            actual = hashlib.sha256()
            while block := stream.read(_BLOCK):
                actual.update(block)
            if actual.hexdigest() != expected:
                raise BundleError(
                    f"{source}: SHA-256 is {actual.hexdigest()}, not {expected}: the file is another one, or damaged. "
                    "Get it again."
                )
        _unpack(str(source), stream, folder, progress)


def _copy_files(source: Path, folder: Path, progress: Progress) -> None:
    card = read_card(source)
    names = [CARD_FILE, *_listed(source, card)]
    sizes = {}
    for name in names:
        try:
            sizes[name] = (source / name).stat().st_size
        except OSError as error:
            raise BundleError(f"{source}: {name} cannot be read ({error.strerror}). Get the bundle again.") from error
    total = sum(sizes.values())
    _check_size(str(source), total)
    _require_space(folder, total)
    done = 0
    for name in names:
        with (source / name).open("rb") as original, (folder / name).open("wb") as copy:
            while block := original.read(_BLOCK):
                done = _step(progress, done + len(block), total)
                if done > MAX_MODEL_BYTES:
                    _check_size(str(source), done)
                copy.write(block)


def _unpack(source: str, archive: Path | IO[bytes], folder: Path, progress: Progress) -> None:
    def check(card_file: bytes, total: int) -> list[str]:
        (folder / CARD_FILE).write_bytes(card_file)
        _check_size(source, total)
        _require_space(folder, total)
        return _listed(source, _read_card(source, folder))

    unpack(source, archive, folder, check, lambda done, total: _step(progress, done, total))


def _read_card(source: str, folder: Path) -> Card:
    try:
        return read_card(folder)
    except BundleError as error:
        raise _foreign(source, folder, error) from error


def _listed(source: str | Path, card: Card) -> list[str]:
    """Files of the card, no two of which are one file where case does not count."""
    names = sorted(card.files)
    if WEIGHTS_FILE not in names:
        raise BundleError(f"{source}: the card gives no hash for {WEIGHTS_FILE}. Get the bundle again.")
    if len({name.lower() for name in (CARD_FILE, *names)}) != len(names) + 1:
        raise BundleError(f"{source}: the card lists two files of the same name. Get the bundle again.")
    return names


def _install(source: str, folder: Path, parent: Path, *, check_weights: bool) -> Bundle:
    try:
        bundle = load_bundle(folder)
        if check_weights:
            bundle.load_cases(bundle.load_network())
    except MediScanError as error:
        raise _foreign(source, folder, error) from error
    for path in folder.iterdir():
        path.chmod(0o644)  # who installs a bundle for others must not hide it from them
    folder.chmod(0o755)
    replace_folder(folder, parent / bundle.name)
    return Bundle(parent / bundle.name, bundle.card)


def _foreign(source: str, folder: Path, error: MediScanError) -> BundleError:
    """The error without the scratch folder in it, which is gone by the time somebody reads it."""
    text = str(error).replace(f"{folder}{os.sep}", "").replace(str(folder), "the model")
    text = text.replace("Install the bundle again", "Get the bundle again")
    return BundleError(f"{source}: cannot be installed. {text}")


def _check_size(source: str, total: int) -> None:
    if total > MAX_MODEL_BYTES:
        raise BundleError(f"{source}: {total} bytes are too many for a model (at most {MAX_MODEL_BYTES}).")


def _require_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise WriteError(
            f"{user_models_folder()}: the disk has {free >> 20} MiB left, and the model needs "
            f"{(needed + SPARE_BYTES) >> 20}. Free some space. Nothing was installed."
        )


def _step(progress: Progress, done: int, total: int) -> int:
    if progress.cancelled():
        raise CancelledError("Cancelled. Nothing was installed.")
    progress.report("unpack", min(done, total), total)
    return done


def _sweep(parent: Path) -> None:
    """Remove what an add that was killed has left; not that of one that is still at work."""
    for path in parent.glob(f"{_SCRATCH}*"):
        with suppress(FileNotFoundError):  # another process may be sweeping too
            if time.time() - path.stat().st_mtime > STALE_S:
                delete_folder(path)
