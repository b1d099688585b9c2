"""A bundle: a folder with `model.safetensors` and `card.json`, and `cases.csv` where it tells of its training cases.

Nothing in it is ever executed.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ..errors import BundleError
from .card import Card
from .cases import CASES_FILE, MAX_CASES_BYTES, Case, format_cases, parse_cases

if TYPE_CHECKING:
    from .fusion import FusionNetwork

CARD_FILE = "card.json"
WEIGHTS_FILE = "model.safetensors"
MAX_CARD_BYTES = 4 * 1024**2
DEFAULT_BUNDLE = "mediscan-general"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose card was read and whose files match their hashes.

    Attributes:
        folder: Where it lies.
        card: Its card.
    """

    folder: Path
    card: Card

    @property
    def name(self) -> str:
        """Name in the card."""
        return self.card.name

    @property
    def version(self) -> str:
        """Version in the card."""
        return self.card.version

    @property
    def description(self) -> str:
        """Description in the card."""
        return self.card.description

    @property
    def sha256(self) -> str:
        """SHA-256 of the weights."""
        return self.card.files[WEIGHTS_FILE]

    def load_network(self) -> FusionNetwork:
        """The network with its weights, on the CPU, in evaluation mode.

        Raises:
            BundleError: The weights do not fit the architecture in the card, or are no longer those that were checked.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        from .fusion import FusionNetwork
        from .novelty import Novelty

        path = self.folder / WEIGHTS_FILE
        try:
            content = path.read_bytes()
            # the file may have been exchanged since the bundle was checked: what is hashed here is what is loaded
            _check_hash(path, hashlib.sha256(content).hexdigest(), self.sha256)
            state = load(content)
        except (SafetensorError, OSError) as error:
            raise BundleError(f"{path}: {error}. Install the bundle again.") from error
        # the weights come from the bundle, so nothing initial is fetched
        network = FusionNetwork.build(self.card.network.model_copy(update={"weights": "none"}))
        try:
            network.novelty = Novelty.of_state(state)
            network.load_state_dict(state)
        except (RuntimeError, TypeError) as error:
            raise BundleError(
                f"{self.folder}: the weights do not fit the network that the card describes "
                f"({str(error).splitlines()[-1].strip()}). Install the bundle again."
            ) from error
        return network.eval()

    def load_cases(self, network: FusionNetwork) -> tuple[Case, ...]:
        """What is told of the training cases, in the order of the references of the network's novelty.

        Args:
            network: From `load_network`.

        Returns:
            One case a reference; none where the bundle tells of none.

        Raises:
            BundleError: The table is none, does not fit the network, or is no longer the one that was checked.
        """
        if CASES_FILE not in self.card.files:
            return ()
        path = self.folder / CASES_FILE
        try:
            with path.open("rb") as stream:
                content = stream.read(MAX_CASES_BYTES + 1)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror}). Install the bundle again.") from error
        _check_hash(path, hashlib.sha256(content).hexdigest(), self.card.files[CASES_FILE])
        cases = parse_cases(content, str(path))
        _check_count(path, cases, network)
        return cases


def load_bundle(name_or_folder: str | Path) -> Bundle:
    """Find a bundle by name or folder, read its card and check every hash.

    Raises:
        BundleError: No such bundle, or one that is damaged, tampered with or of another format.
    """
    folder = _find(name_or_folder)
    card = read_card(folder)
    _check_files(folder, card)
    return Bundle(folder, card)


def read_card(folder: Path) -> Card:
    """The card of a bundle folder, validated; hashes are not checked here.

    Raises:
        BundleError: There is no card, or it is not valid.
    """
    path = folder / CARD_FILE
    try:
        size = path.stat().st_size
        text = path.read_bytes() if size <= MAX_CARD_BYTES else b""
    except OSError as error:
        raise BundleError(
            f"{folder}: is not a MediScan bundle, {CARD_FILE} cannot be read ({error.strerror})."
        ) from error
    if size > MAX_CARD_BYTES:
        raise BundleError(f"{path}: {size} bytes is too large for a card (at most {MAX_CARD_BYTES}).")
    try:
        return Card.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        raise BundleError(
            f"{path}: is not a valid card at {where}: {first['msg']}. "
            "Install the bundle again, or update MediScan if the bundle is newer."
        ) from error


def save_bundle(network: FusionNetwork, card: Card, parent: Path, cases: Sequence[Case] = ()) -> Bundle:
    """Write a bundle to `parent / card.name`, replacing an older one only when the new one is complete.

    Args:
        network: Trained network; saved as float32.
        card: Its card; `files` is filled in here.
        parent: Folder that holds bundles.
        cases: What is told of the training cases, one for each reference of the network's novelty; none to tell of
            none.

    Raises:
        BundleError: Not one case for each reference.
    """
    from safetensors.torch import save_file

    if cases:
        _check_count(parent / card.name / CASES_FILE, cases, network)
    parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{card.name}-", dir=parent))
    try:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        save_file(state, scratch / WEIGHTS_FILE)
        names = [WEIGHTS_FILE]
        if cases:
            (scratch / CASES_FILE).write_bytes(format_cases(cases))
            names.append(CASES_FILE)
        card = card.model_copy(update={"files": {name: file_sha256(scratch / name) for name in names}})
        (scratch / CARD_FILE).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")
        # made private by the libraries; whoever installs a bundle for others must not hide it from them
        (scratch / WEIGHTS_FILE).chmod(0o644)
        scratch.chmod(0o755)
        folder = parent / card.name
        replace_folder(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return load_bundle(folder)


def replace_folder(new: Path, folder: Path) -> None:
    """Put a complete folder in the place of another one of the same disk, if there is one.

    Raises:
        OSError: It cannot be done; then the other one is where it was.
    """
    old = folder.with_name(f".{folder.name}-old-{secrets.token_hex(4)}")
    try:
        folder.rename(old)
    except FileNotFoundError:
        new.rename(folder)
        return
    try:
        new.rename(folder)
    except BaseException:  # an interrupt too must not take the old one away
        old.rename(folder)
        raise
    delete_folder(old)


def delete_folder(folder: Path) -> None:
    """Delete a folder as far as that is possible; of a link, the link only."""
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def available_bundles() -> list[Bundle]:
    """Bundles in the search path, the first of each name; damaged ones are left out (`mediscan models verify`)."""
    found: dict[str, Bundle] = {}
    for folder in bundle_folders():
        try:
            bundle = load_bundle(folder)
        except BundleError:
            continue
        found.setdefault(bundle.name, bundle)
    return list(found.values())


def bundle_folders() -> list[Path]:
    """Every folder with a card in the search path, damaged or not."""
    return sorted(
        (
            folder
            for parent in search_path()
            if parent.is_dir()
            for folder in parent.iterdir()
            if (folder / CARD_FILE).is_file() and not folder.name.startswith(".")
        ),
        key=lambda folder: (search_path().index(folder.parent), folder.name),
    )


def search_path() -> list[Path]:
    """Where bundles are looked for: MEDISCAN_MODELS, the user's own, those that came with the software."""
    package = Path(__file__).resolve().parent.parent
    chosen = [Path(part) for part in os.environ.get("MEDISCAN_MODELS", "").split(os.pathsep) if part]
    return [*chosen, user_models_folder(), package / "models", package.parent / "Resources" / "Models"]


def user_models_folder() -> Path:
    """The user's own bundles."""
    return user_folder() / "Models"


def user_folder() -> Path:
    """What MediScan keeps for a user, outside the installation so that an upgrade leaves it alone."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    return base / "MediScan"


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as hexadecimal text."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _find(name_or_folder: str | Path) -> Path:
    given = Path(name_or_folder)
    if given.name == str(name_or_folder):  # a name first: a folder that happens to be here must not stand in for it
        for folder in bundle_folders():
            if folder.name == given.name:
                return folder
    if (given / CARD_FILE).is_file():
        return given.resolve()
    names = ", ".join(sorted({folder.name for folder in bundle_folders()})) or "none"
    raise BundleError(
        f"{name_or_folder}: no such model. Give the folder of a bundle (it holds {CARD_FILE}) or one of: {names}."
    )


def _check_files(folder: Path, card: Card) -> None:
    if WEIGHTS_FILE not in card.files:
        raise BundleError(f"{folder}: the card gives no hash for {WEIGHTS_FILE}. Install the bundle again.")
    for name, expected in card.files.items():
        path = folder / name
        if not path.is_file():
            raise BundleError(f"{folder}: {name} is missing. Install the bundle again.")
        try:
            if name == CASES_FILE and path.stat().st_size > MAX_CASES_BYTES:
                raise BundleError(f"{path}: is too large for a table of cases (at most {MAX_CASES_BYTES} bytes).")
            actual = file_sha256(path)
        except OSError as error:
            raise BundleError(f"{path}: cannot be read ({error.strerror}). Install the bundle again.") from error
        _check_hash(path, actual, expected)


def _check_count(path: Path, cases: Sequence[Case], network: FusionNetwork) -> None:
    references = 0 if network.novelty is None else len(network.novelty.references)
    if len(cases) != references:
        raise BundleError(
            f"{path}: tells of {len(cases)} training cases, and the network remembers {references}: they are not of "
            "one training. Install the bundle again."
        )


def _check_hash(path: Path, actual: str, expected: str) -> None:
    if actual != expected:
        raise BundleError(
            f"{path}: SHA-256 is {actual[:12]}..., the card says {expected[:12]}...: the file was damaged or "
            "changed. Install the bundle again."
        )
