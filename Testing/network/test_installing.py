"""Models that a user adds, from a folder, an archive and a real HTTP server, with everything that can go wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import subprocess
import sys
import threading
import time
import zipfile
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from MediScanLib.config import ModelConfig
from MediScanLib.errors import BundleError, CancelledError, MediScanError, UsageError, WriteError
from MediScanLib.network import download, installing
from MediScanLib.network.bundle import CARD_FILE, DEFAULT_BUNDLE, WEIGHTS_FILE, load_bundle, save_bundle
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.network.installing import add_model, export_model, remove_model, verify_models
from MediScanLib.progress import CallbackProgress
from toys import make_card


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return FusionNetwork.build(ModelConfig(weights="none"))


@pytest.fixture(scope="module")
def toy(network, tmp_path_factory) -> Path:
    """A bundle on this machine that is not installed."""
    return save_bundle(network, make_card(), tmp_path_factory.mktemp("made")).folder


@pytest.fixture(scope="module")
def packed(toy, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "toy.zip"
    export_model(toy, path)
    return path


@pytest.fixture(autouse=True)
def mine(monkeypatch, tmp_path) -> Path:
    """The user's folder of models: an empty one, made by the first add."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.platform", "linux")
    return tmp_path / "home" / "MediScan" / "Models"


def digest(path: Path) -> str:
    return sha256(path.read_bytes()).hexdigest()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def edited(folder: Path, toy: Path, change) -> Path:
    """A copy of the toy whose card says something else."""
    folder.mkdir()
    card = json.loads((toy / CARD_FILE).read_text())
    change(card)
    (folder / CARD_FILE).write_text(json.dumps(card))
    (folder / WEIGHTS_FILE).write_bytes((toy / WEIGHTS_FILE).read_bytes())
    return folder


# What is good


@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_added_used_and_removed(toy, packed, mine, kind):
    bundle = add_model(toy if kind == "folder" else packed)
    assert bundle.folder == mine / "toy"
    assert names(mine) == ["toy"]
    assert names(bundle.folder) == [CARD_FILE, WEIGHTS_FILE]
    assert (bundle.folder.stat().st_mode & 0o777, (bundle.folder / WEIGHTS_FILE).stat().st_mode & 0o777) == (
        0o755,
        0o644,
    )
    found = load_bundle("toy")
    assert (found.folder, found.card) == (bundle.folder, bundle.card)
    found.load_network()
    remove_model("toy")
    assert names(mine) == []
    with pytest.raises(BundleError, match="no such model"):
        load_bundle("toy")


def test_only_what_the_card_lists_is_taken_from_a_folder(toy, mine, tmp_path):
    folder = edited(tmp_path / "toy", toy, lambda card: None)
    (folder / "setup.py").write_text("raise SystemExit")
    add_model(folder)
    assert names(mine / "toy") == [CARD_FILE, WEIGHTS_FILE]


def test_a_newer_one_replaces_and_a_damaged_newer_one_does_not(toy, mine, tmp_path):
    add_model(toy)
    newer = edited(tmp_path / "newer", toy, lambda card: card.update(version="2"))
    assert add_model(newer).version == "2"
    assert load_bundle("toy").version == "2"
    (newer / WEIGHTS_FILE).write_bytes((newer / WEIGHTS_FILE).read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"newer: cannot be installed.*SHA-256"):
        add_model(newer)
    assert load_bundle("toy").version == "2"
    assert names(mine) == ["toy"]


def test_the_old_one_comes_back_where_the_new_one_cannot_take_its_place(toy, mine, tmp_path, monkeypatch):
    add_model(toy)
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if self.name == "model":
            raise PermissionError(13, "in use")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(WriteError, match="in use"):
        add_model(edited(tmp_path / "newer", toy, lambda card: card.update(version="2")))
    assert load_bundle("toy").version == "1"
    assert names(mine) == ["toy"]


def test_the_same_model_gives_the_same_archive(toy, tmp_path):
    first = export_model(toy, tmp_path / "a.zip")
    os.utime(toy / CARD_FILE, (0, 10**9))
    assert export_model(toy, tmp_path / "b.zip") == first == digest(tmp_path / "b.zip")
    assert names(tmp_path) == ["a.zip", "b.zip"]
    with pytest.raises(UsageError, match=r"\.zip"):
        export_model(toy, tmp_path / "model.safetensors")
    with pytest.raises(BundleError, match="no such model"):
        export_model("toy", tmp_path / "c.zip")


def test_an_archive_of_this_machine_may_be_checked_too(packed, mine):
    with pytest.raises(BundleError, match=rf"toy.zip: SHA-256 is {digest(packed)}, not {'0' * 64}"):
        add_model(packed, "0" * 64)
    assert names(mine) == []
    assert add_model(packed, f" SHA256:{digest(packed).upper()}\n").name == "toy"


# Wrong use


@pytest.mark.parametrize(
    ("source", "hash_", "says"),
    [
        ("nowhere.zip", None, "is not there"),
        ("http://127.0.0.1/toy.zip", None, "only if its SHA-256 is known"),
        ("http://127.0.0.1/toy.zip", "abc", "is no SHA-256"),
        ("file:///etc/passwd", "0" * 64, "http and https only"),
        ("ftp://127.0.0.1/toy.zip", "0" * 64, "http and https only"),
        (".", "0" * 64, "which has no SHA-256"),
    ],
)
def test_wrong_use(source, hash_, says):
    with pytest.raises(UsageError, match=says):
        add_model(source, hash_)


def test_only_the_users_own_models_are_removed(toy, mine, monkeypatch, tmp_path):
    shipped = load_bundle(DEFAULT_BUNDLE).folder
    with pytest.raises(UsageError, match="came with MediScan and stays"):
        remove_model(DEFAULT_BUNDLE)
    monkeypatch.setenv("MEDISCAN_MODELS", str(toy.parent))
    with pytest.raises(UsageError, match="delete its folder yourself"):
        remove_model("toy")
    for name in ("nope", "", ".", "..", "../Models", str(toy), "toy/", ".hidden"):
        with pytest.raises(UsageError, match="no such model"):
            remove_model(name)
    assert (shipped / WEIGHTS_FILE).is_file()
    assert (toy / WEIGHTS_FILE).is_file()


def test_removing_a_link_leaves_what_it_leads_to(toy, mine):
    mine.mkdir(parents=True)
    (mine / "linked").symlink_to(toy, target_is_directory=True)
    remove_model("linked")
    assert names(mine) == []
    assert (toy / WEIGHTS_FILE).is_file()


def test_damaged_models_are_told_and_can_be_removed(toy, mine):
    add_model(toy)
    (mine / "toy" / CARD_FILE).write_text("{")
    (checked,) = verify_models(["toy"])
    assert checked.bundle is None
    assert "not a valid card" in str(checked.error)
    remove_model("toy")
    assert names(mine) == []
    assert [(checked.name, checked.error) for checked in verify_models([str(toy)])] == [(str(toy), None)]


# Archives that are none


def zipped(path: Path, files: dict[str, bytes], **attributes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.get(name.replace(".", "_"), {}).items():
                setattr(entry, key, value)
            made.writestr(entry, content)
    return path


@pytest.fixture
def files(toy) -> dict[str, bytes]:
    return {name: (toy / name).read_bytes() for name in (CARD_FILE, WEIGHTS_FILE)}


def refused(source: Path, mine: Path, says: str) -> None:
    with pytest.raises(BundleError, match=says) as caught:
        add_model(source)
    assert source.name in str(caught.value)
    assert ".adding" not in str(caught.value)
    assert names(mine) == []


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "..", ".", "a\\b", "C:evil", "toy/card.json", "a/"])
def test_paths_in_an_archive_are_refused(files, mine, tmp_path, name):
    refused(zipped(tmp_path / "x.zip", {**files, name: b"x"}), mine, "lies in a folder")
    assert names(tmp_path) == ["home", "x.zip"]


@pytest.mark.parametrize("mode", [0o120777, 0o040755, 0o020666, 0o010666], ids=["link", "folder", "device", "pipe"])
def test_links_and_devices_in_an_archive_are_refused(files, mine, tmp_path, mode):
    content = {**files, WEIGHTS_FILE: b"/etc/passwd"}
    path = zipped(tmp_path / "x.zip", content, model_safetensors={"external_attr": mode << 16, "create_system": 3})
    refused(path, mine, "no plain file")


def test_what_the_card_does_not_list_is_refused(files, mine, tmp_path):
    refused(zipped(tmp_path / "x.zip", {**files, "setup.py": b"x"}), mine, "'setup.py' is no file that the card lists")
    refused(zipped(tmp_path / "y.zip", {CARD_FILE: files[CARD_FILE]}), mine, f"{WEIGHTS_FILE} is missing")
    refused(zipped(tmp_path / "z.zip", {WEIGHTS_FILE: files[WEIGHTS_FILE]}), mine, "holds no card.json")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda card: card.pop("labels"), "labels"),
        (lambda card: card.update(name="../evil"), "name"),
        (lambda card: card.update(name=".hidden"), "name"),
        (lambda card: card["files"].clear(), "no hash for"),
        (lambda card: card["files"].update({"card.json": "0" * 64}), "two files of the same name"),
        (lambda card: card["files"].update({"CARD.json": "0" * 64}), "two files of the same name"),
        (lambda card: card["files"].update({WEIGHTS_FILE: "0" * 64}), "SHA-256"),
        (lambda card: card["network"].update(fusion="attention"), "do not fit"),
    ],
)
def test_wrong_cards_are_refused(toy, mine, tmp_path, change, says):
    folder = edited(tmp_path / "wrong", toy, change)
    refused(folder, mine, says)
    refused(zipped(tmp_path / "wrong.zip", {n: (folder / n).read_bytes() for n in names(folder)}), mine, says)


def test_a_pickle_in_place_of_weights_is_never_loaded(toy, mine, tmp_path):
    stream = io.BytesIO()
    torch.save({"x": torch.zeros(1)}, stream)
    folder = edited(
        tmp_path / "wrong",
        toy,
        lambda card: card["files"].update({WEIGHTS_FILE: sha256(stream.getvalue()).hexdigest()}),
    )
    (folder / WEIGHTS_FILE).write_bytes(stream.getvalue())
    refused(folder, mine, "cannot be installed")
    assert add_model(folder, check_weights=False).name == "toy", "the check is what refuses it"


def test_a_bomb_goes_off_nowhere(files, mine, tmp_path, monkeypatch):
    monkeypatch.setattr(installing, "MAX_MODEL_BYTES", 64 << 20)
    path = zipped(tmp_path / "x.zip", {**files, WEIGHTS_FILE: bytes(100 << 20)})
    assert path.stat().st_size < 1 << 20
    refused(path, mine, "too many for a model")
    refused(zipped(tmp_path / "y.zip", {**files, CARD_FILE: bytes(8 << 20)}), mine, "too many for a card")
    refused(zipped(tmp_path / "z.zip", {f"{n}.txt": b"" for n in range(40)}), mine, "too many files")
    refused(zipped(tmp_path / "w.zip", {"a" * 60_000: b"", "b" * 60_000: b""}), mine, "too many files")


def test_a_bomb_that_lies_about_its_size(files, mine, tmp_path):
    """The directory says 100 bytes where 50 MiB come out: no more than announced is ever written."""
    path = zipped(tmp_path / "x.zip", {**files, WEIGHTS_FILE: bytes(50 << 20)})
    data = path.read_bytes()
    assert data.count((50 << 20).to_bytes(4, "little")) == 2
    path.write_bytes(data.replace((50 << 20).to_bytes(4, "little"), (100).to_bytes(4, "little")))
    refused(path, mine, "x.zip")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_changed_in_an_archive_installs_nothing_else(small_archive, mine, data):
    """Bytes changed, cut or added: a MediScanError, or exactly the model that was packed."""
    path, folder = small_archive
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        how = data.draw(st.sampled_from(["change", "cut", "add"]))
        if how == "change":
            content[at] = data.draw(st.integers(0, 255))
        elif how == "cut":
            content = content[: max(1, at)]
        else:
            content[at:at] = data.draw(st.binary(min_size=1, max_size=30))
    broken = path.with_name("broken.zip")
    broken.write_bytes(bytes(content))
    try:
        bundle = add_model(broken, check_weights=False)
    except MediScanError:
        assert names(mine) == []
    else:
        assert {name: (bundle.folder / name).read_bytes() for name in names(bundle.folder)} == {
            name: (folder / name).read_bytes() for name in names(folder)
        }
        remove_model("toy")


@pytest.fixture(scope="module")
def small_archive(tmp_path_factory) -> tuple[Path, Path]:
    """A model with weights of 100 bytes; whether they fit is not asked."""
    folder = tmp_path_factory.mktemp("small") / "toy"
    folder.mkdir()
    (folder / WEIGHTS_FILE).write_bytes(bytes(range(100)))
    card = make_card(files={WEIGHTS_FILE: digest(folder / WEIGHTS_FILE)})
    (folder / CARD_FILE).write_text(card.model_dump_json())
    export_model(folder, folder.parent / "toy.zip")
    return folder.parent / "toy.zip", folder


def test_garbage_is_no_archive(mine, tmp_path):
    for number, content in enumerate((b"", b"PK", b"x" * 1000, b"PK\x05\x06" + bytes(18))):
        path = tmp_path / f"{number}.zip"
        path.write_bytes(content)
        refused(path, mine, r"\.zip: is no|holds no card")


# Disk, permissions, leftovers


def test_a_full_disk_is_told_before_anything_is_written(packed, mine, monkeypatch):
    monkeypatch.setattr(installing.shutil, "disk_usage", lambda _: type("", (), {"free": 1 << 20}))
    with pytest.raises(WriteError, match="1 MiB left, and the model needs"):
        add_model(packed)
    assert names(mine) == []


def test_a_disk_that_fills_up_while_unpacking(packed, mine):
    code = f"""
import resource, signal
from MediScanLib.network.installing import add_model
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
add_model({str(packed)!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    assert "WriteError" in done.stderr.splitlines()[-1]
    assert "Nothing was installed" in done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 100_000
    assert names(mine) == []


def test_a_user_folder_that_is_a_file(packed, mine):
    mine.parent.mkdir(parents=True)
    mine.write_text("in the way")
    with pytest.raises(WriteError, match="cannot be written"):
        add_model(packed)
    assert mine.read_text() == "in the way"


def test_what_a_killed_add_left_goes_at_the_next_and_one_at_work_stays(packed, mine):
    for name, age in ((".adding-old", 3 * installing.STALE_S), (".adding-new", 60)):
        (mine / name).mkdir(parents=True)
        (mine / name / "download.zip").write_bytes(b"x")
        os.utime(mine / name, (time.time() - age,) * 2)
    add_model(packed)
    assert names(mine) == [".adding-new", "toy"]


# Over the network


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address) -> None:
        """Clients that hang up are what these tests are about."""


@contextlib.contextmanager
def serving(answer):
    """The address of a server on this machine that gives `answer(handler)` to every request."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.close_connection = True
            answer(self)

        def log_message(self, *_):
            pass

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/models/toy.zip"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler, content: bytes, length: int | None = -1, status: int = 200) -> None:
    handler.send_response(status)
    if length is not None:
        handler.send_header("Content-Length", str(len(content) if length == -1 else length))
    handler.end_headers()
    handler.wfile.write(content)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.parametrize("length", [-1, None], ids=["with length", "without length"])
def test_fetched_and_installed(packed, mine, length):
    content, stages = packed.read_bytes(), []
    with serving(lambda handler: send(handler, content, length)) as url:
        bundle = add_model(url, digest(packed), CallbackProgress(lambda *step: stages.append(step)))
    assert bundle.folder == mine / "toy"
    assert names(mine) == ["toy"]
    total = len(content) if length == -1 else 0
    assert stages[0] == ("download", 0, total)
    assert ("download", len(content), total) in stages
    assert stages[-1][0] == "unpack"
    assert stages[-1][1] == stages[-1][2]


def test_redirects_within_http_are_followed(packed, mine):
    def answer(handler):
        if handler.path.endswith("zip"):
            handler.send_response(302)
            handler.send_header("Location", "/there")
            handler.end_headers()
        else:
            send(handler, packed.read_bytes())

    with serving(answer) as url:
        assert add_model(url, digest(packed)).name == "toy"


@pytest.mark.parametrize("target", ["file://{}", "ftp://127.0.0.1/toy.zip", "data:,x", "toy.zip"])
def test_redirects_elsewhere_are_not(packed, mine, target):
    """A redirect to this machine's own good copy is refused too, and one to itself ends."""

    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", target.format(packed))
        handler.end_headers()

    with serving(answer) as url, pytest.raises(BundleError, match=r"not followed|not allowed|302|infinite"):
        add_model(url, digest(packed))
    assert names(mine) == []


def test_from_https_to_http_is_not_followed():
    request = download.Request("https://example.org/x")
    with pytest.raises(download.URLError, match="not followed"):
        download._Redirects().redirect_request(request, io.BytesIO(), 302, "", {}, "http://example.org/x")


def too_much(content):
    def answer(handler):
        handler.send_response(200)
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(1000):
                handler.wfile.write(bytes(1 << 20))

    return answer


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda content: lambda handler: send(handler, content + b"x"), "SHA-256 of what came"),
        (lambda content: lambda handler: send(handler, content[:-1]), "SHA-256 of what came"),
        (lambda content: lambda handler: send(handler, content[:5000], len(content)), "broke off after 5000 of"),
        (lambda content: lambda handler: send(handler, b"", 10**15), "too many for a model"),
        (lambda content: lambda handler: send(handler, b"gone", status=404), "answers 404"),
        (lambda content: lambda handler: send(handler, b"broken", status=500), "answers 500"),
        (lambda content: lambda handler: handler.wfile.write(b"garbage\r\n\r\n"), "cannot be fetched"),
        (lambda content: lambda handler: None, "cannot be fetched"),
        (too_much, "sends more than"),
    ],
    ids=["longer", "shorter", "truncated", "announces too much", "404", "500", "no http", "hangs up", "never ends"],
)
def test_servers_that_do_not_deliver(packed, mine, monkeypatch, answer, says):
    monkeypatch.setattr(installing, "MAX_MODEL_BYTES", 32 << 20)
    with serving(answer(packed.read_bytes())) as url, pytest.raises(BundleError, match=says):
        add_model(url, digest(packed))
    assert names(mine) == []


def test_a_server_that_sends_more_than_it_says(packed, mine):
    """What was announced is read, the rest is not: here that is the whole model."""
    content = packed.read_bytes()
    with serving(lambda handler: send(handler, content + bytes(1 << 20), len(content))) as url:
        assert add_model(url, digest(packed)).name == "toy"


def silent(handler):
    time.sleep(3)


def falls_silent(handler):
    send(handler, b"PK", 1000)
    handler.wfile.flush()
    time.sleep(3)


def trickles(handler):
    send(handler, b"", 100_000)
    with contextlib.suppress(OSError):
        for _ in range(60):
            handler.wfile.write(b"x")
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "says"), [(silent, "within 0.4 s"), (falls_silent, "fallen silent"), (trickles, "too slow")]
)
def test_slow_servers_are_given_up(mine, answer, says):
    with serving(answer) as url, pytest.raises(BundleError, match=says):
        add_model(url, "0" * 64, timeout_s=0.4)
    assert names(mine) == []


@pytest.mark.parametrize("stage", ["download", "unpack"])
def test_cancelled_in_the_middle(packed, mine, stage):
    reached = []

    def hear(now: str, done: int, total: int) -> None:
        if now == stage and done:
            reached.append(done)

    progress = CallbackProgress(hear, lambda: bool(reached))
    with serving(lambda handler: send(handler, packed.read_bytes())) as url, pytest.raises(CancelledError):
        add_model(url, digest(packed), progress)
    assert names(mine) == []


def test_addresses_that_are_none(mine):
    for url in ("http://", "http://127.0.0.1:99999/x", "http://[::1/x", "http://127.0.0.1/a b", "http://ü.example/x"):
        with pytest.raises(BundleError):
            add_model(url, "0" * 64, timeout_s=2)
    assert names(mine) == []
