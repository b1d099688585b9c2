"""The remote engine against real servers: the same answer to the bit, never waiting, and clear words for failures."""

from __future__ import annotations

import json
import socket
import socketserver
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from serving import RunningServer, make_bundle

from MediScanLib.cli import main
from MediScanLib.config import InferenceConfig
from MediScanLib.errors import CancelledError, MediScanError, ServerError, UsageError
from MediScanLib.prediction import remote as remotes
from MediScanLib.prediction.engine import InProcess
from MediScanLib.prediction.exchange import Request
from MediScanLib.prediction.packing import completed, pack, unpack
from MediScanLib.prediction.remote import Remote, read_token
from MediScanLib.prediction.result import Prediction
from MediScanLib.prediction.server_client import ServerClient
from MediScanLib.progress import CallbackProgress
from MediScanLib.server.storage.database import Database
from MediScanLib.server.storage.tokens import TokenStore
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.phantom import make_phantom
from MediScanLib.study.reading import read_image
from MediScanLib.study.record import ClinicalRecord

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 120.0


def image_of(slices: int = 1, *, whole_numbers: bool = False) -> MedicalImage:
    rng = np.random.default_rng(3)
    pixels = rng.random((slices, 40, 50), dtype=np.float32) * 1000
    return MedicalImage(
        np.round(pixels) if whole_numbers else pixels,
        spacing=(0.5, 0.7, 2.0),
        origin=(1.0, -2.0, 3.0),
        modality="CT" if slices > 1 else "CR",
        window=(400, 900),
        identifiers={"study": "abc"},
        prefill={"age_years": 44.0, "sex": "F"},
        source="Röntgen Müller.png",
        warnings=("careful",),
    )


def request(image: MedicalImage, record: ClinicalRecord | None = None, **changes) -> Request:
    return Request(image, record or ClinicalRecord(crp_mg_per_l=80), **{"model": "toy-random", **changes})


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_bundle(folder)
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory, models):
    folder = tmp_path_factory.mktemp("server") / "data"
    with RunningServer(
        folder, models, models=("toy-random", "mediscan-general"), require_token=True, requests_per_minute=0
    ) as running:
        yield running


@pytest.fixture(scope="module")
def token(server) -> str:
    return TokenStore(Database(server.settings.database_url)).add("panel", "submitter")


@pytest.fixture(scope="module")
def remote(server, token):
    with Remote(server.url, token) as remote:
        yield remote


@pytest.fixture
def local(models, monkeypatch):
    monkeypatch.setenv("MEDISCAN_MODELS", str(models))
    return InProcess()


def the_same(one: Prediction, other: Prediction) -> bool:
    first, second = one.to_dict(), other.to_dict()
    for content in (first, second):
        content["provenance"]["seconds"] = None
    assert one.maps is not None
    assert other.maps is not None
    return first == second and one.maps.to_json() == other.maps.to_json()


def wait_for(run) -> Prediction:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        started = time.perf_counter()
        prediction = run.poll()
        assert time.perf_counter() - started < 5.0, "polling never waits for the network"
        if prediction is not None:
            return prediction
        time.sleep(0.02)
    raise AssertionError(f"still {run.step}")


# what travels


@settings(max_examples=40, deadline=None)
@given(
    pixels=arrays(np.float32, (2, 3, 4), elements=st.floats(-1e6, 1e6, width=32) | st.integers(-5, 5).map(float)),
    text=st.text(max_size=20),
)
def test_a_packed_request_is_the_request(pixels, text) -> None:
    image = replace(image_of(2), pixels=pixels, source=text)
    sent = request(image, slices=range(1), settings=InferenceConfig(confidence_threshold=0.7))
    head, body = pack(sent)
    got = unpack(head + bytes(body)).request()
    assert got.image.pixels.tobytes() == image.pixels.tobytes()
    for part in fields(image):
        if part.name not in ("pixels", "source", "identifiers", "warnings"):
            assert getattr(got.image, part.name) == getattr(image, part.name), part.name
    assert (got.record, got.model, got.slices, got.settings) == (sent.record, sent.model, [0], sent.settings)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_block_is_an_error_and_nothing_else(data) -> None:
    head, body = pack(request(image_of(1, whole_numbers=True)))
    block = bytearray(head + bytes(body))
    for _ in range(data.draw(st.integers(1, 8))):
        block[data.draw(st.integers(0, len(head) + 50))] = data.draw(st.integers(0, 255))
    block = block[: data.draw(st.integers(0, len(block)))] if data.draw(st.booleans()) else block
    with suppress(MediScanError):
        unpack(block, most_voxels=10_000).request()


def test_what_a_newer_version_sends_is_told_to_be_newer() -> None:
    head, body = pack(request(image_of()))
    text = head[24:].replace(b'"settings":{', b'"settings":{"new_in_the_future":1,')
    with pytest.raises(UsageError, match="new_in_the_future") as caught:
        unpack(head[:16] + len(text).to_bytes(8, "little") + text + bytes(body))
    assert caught.value.code == "not_packed", "which the client says as server_version"


def test_whole_numbers_travel_in_half_the_bytes() -> None:
    assert len(pack(request(image_of(2, whole_numbers=True)))[1]) == 2 * 2 * 40 * 50
    assert len(pack(request(image_of(2)))[1]) == 4 * 2 * 40 * 50
    negative_zero = replace(image_of(), pixels=np.full((1, 3, 3), -0.0, np.float32))
    assert len(pack(request(negative_zero))[1]) == 4 * 9


def test_names_do_not_travel() -> None:
    head, _ = pack(request(image_of()))
    for secret in ("Müller", "M\\u00fcller", "abc", "careful"):
        assert secret.encode() not in head


# the same answer


@pytest.mark.parametrize("slices", [1, 7])
@pytest.mark.parametrize("whole_numbers", [True, False])
def test_the_server_says_what_this_process_says(remote, local, slices, whole_numbers) -> None:
    asked = request(image_of(slices, whole_numbers=whole_numbers))
    there, here = remote.predict(asked), local.predict(replace(asked, device="cpu"))
    assert the_same(there, here)
    assert there.input == "Röntgen Müller.png"
    assert there.image.identifiers == {"study": "abc"}
    assert there.image.warnings[0] == "careful"


def test_settings_and_slices_travel(remote, local) -> None:
    asked = request(image_of(5), slices=(1, 3), settings=InferenceConfig(severity_scoring=False, max_batch_size=1))
    assert the_same(remote.predict(asked), local.predict(replace(asked, device="cpu")))
    bare = remote.predict(request(image_of(), settings=InferenceConfig(explainability=False)))
    assert bare.maps is None


def test_other_explanations_travel_both_ways(remote, local) -> None:
    asked = request(image_of(), settings=InferenceConfig(explanation="layercam", faithfulness=True))
    there = remote.predict(asked)
    assert there.faithfulness
    assert {found.method for found in there.heat_maps} == {"layercam"}
    here = local.predict(replace(asked, device="cpu"))
    for prediction in (there, here):  # a note tells how long it took
        prediction.provenance = prediction.provenance.model_copy(update={"notes": []})
    assert the_same(there, here)


def test_the_shipped_model_on_a_real_radiograph(remote, shared_data) -> None:
    image = read_image(next(iter(sorted((shared_data / "images" / "cohen").iterdir()))))
    asked = Request(image, ClinicalRecord(age_years=63, temperature_c=38.4), model="mediscan-general")
    assert the_same(remote.predict(asked), InProcess().predict(replace(asked, device="cpu")))


def test_another_record_does_not_send_the_image_again(remote, local) -> None:
    image = image_of(3)
    remote.predict(request(image))
    stages: list[str] = []
    progress = CallbackProgress(lambda stage, done, total: stages.append(stage))
    again = request(image, ClinicalRecord(age_years=80))
    assert the_same(remote.predict(again, progress), local.predict(replace(again, device="cpu")))
    assert "sending the image" not in stages


def test_a_server_that_forgot_the_image_gets_it_again(server, token) -> None:
    client = ServerClient(server.url, token)
    first = client.predict(request(image_of(2)))
    other = ServerClient(server.url, TokenStore(Database(server.settings.database_url)).add("other", "submitter"))
    other._known = client._known  # as after a restart of the server: it remembers nothing of this caller
    assert the_same(other.predict(request(image_of(2))), first)


# never waiting, and cancelling


def test_how_far_it_is_can_be_seen(remote) -> None:
    steps = []
    run = remote.submit(request(image_of(60)))
    while run.poll() is None:
        steps.append(run.step)
        time.sleep(0.01)
    assert any(step.stage == "slices" and step.total == 60 for step in steps)


def ended(server, token, outcome: str) -> float:
    """How many studies came to that end on the server."""
    with server.client(token) as client:
        text = client.get("/v1/metrics").text
    line = f'mediscan_predictions_total{{model="toy-random",outcome="{outcome}"}} '
    return sum(float(found.removeprefix(line)) for found in text.splitlines() if found.startswith(line))


def test_a_cancelled_run_ends_also_on_the_server(remote, server, token) -> None:
    stopped, done = ended(server, token, "failed"), ended(server, token, "done")
    run = remote.submit(request(image_of(400), settings=InferenceConfig(max_batch_size=1)))
    while run.step.stage != "slices":
        assert run.poll() is None
        time.sleep(0.01)
    run.cancel()
    with pytest.raises(CancelledError):
        wait_for(run)
    assert remote.predict(request(image_of(2))).slices
    assert (ended(server, token, "failed"), ended(server, token, "done")) == (stopped + 1, done + 1)


def test_a_silent_server_does_not_hold_anybody() -> None:
    with deaf_server() as url, Remote(url, timeout_s=30) as remote:
        run = remote.submit(request(image_of()))
        end = time.monotonic() + 10
        while run.step.stage == "starting" and time.monotonic() < end:
            assert run.poll() is None
            time.sleep(0.02)
        run.cancel()
        started = time.monotonic()
        with pytest.raises(CancelledError):
            wait_for(run)
        assert time.monotonic() - started < 15, "long before the server's silence is over"


def test_the_child_needs_no_torch() -> None:
    script = "import MediScanLib.prediction.remote, sys; print('torch' in sys.modules, 'monai' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"]


# what goes wrong


def code_of(call) -> str:
    with pytest.raises(ServerError) as caught:
        call()
    assert str(caught.value)[-1] in ".)"
    return caught.value.code


@contextmanager
def deaf_server():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def scripted_server(*answers: bytes):
    """Says what it is told, one answer a connection, the last one again and again."""
    left = list(answers)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.settimeout(5)
            data = b""
            while b"\r\n\r\n" not in data:
                data += self.request.recv(65536)
            self.request.sendall(left.pop(0) if len(left) > 1 else left[0])
            self.request.shutdown(socket.SHUT_WR)
            while self.request.recv(65536):
                pass

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def handle_error(self, request, client_address) -> None:
            pass

    with Server(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()


def http(status: str, body: bytes, *headers: str, kind: str = "application/problem+json") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Type: {kind}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def test_the_connection_can_be_tested(server, token) -> None:
    info = remotes.test_connection(server.url, token)
    assert info.role == "submitter"
    assert [model.name for model in info.models] == ["toy-random", "mediscan-general"]
    assert info.model("toy-random").labels[1] == "pneumonia"
    assert info.seconds < 3
    assert Remote(server.url, token).test() == replace(info, seconds=pytest.approx(info.seconds, abs=3))


def test_nobody_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    assert code_of(lambda: remotes.test_connection(url)) == "server_unreachable"
    with Remote(url) as remote:
        assert code_of(lambda: remote.predict(request(image_of()))) == "server_unreachable"
        assert code_of(lambda: remote.predict(request(image_of()))) == "server_unreachable"


def test_tokens(server, token) -> None:
    assert code_of(lambda: remotes.test_connection(server.url)) == "server_token"
    assert code_of(lambda: remotes.test_connection(server.url, token + "x")) == "server_token"
    assert code_of(lambda: remotes.test_connection(server.url, "two words")) == "server_token"
    assert code_of(lambda: remotes.test_connection(server.url, "a\r\nX-Evil: 1")) == "server_token"
    with Remote(server.url, "wrong") as remote:
        assert code_of(lambda: remote.predict(request(image_of(50)))) == "server_token"
    reader = TokenStore(Database(server.settings.database_url)).add("looker", "reader")
    assert remotes.test_connection(server.url, reader).role == "reader"
    with Remote(server.url, reader) as remote:
        assert code_of(lambda: remote.predict(request(image_of()))) == "server_role"


def test_an_unknown_model(remote) -> None:
    assert code_of(lambda: remote.predict(request(image_of(), model="nowhere"))) == "server_model"


def test_what_is_wrong_with_the_request_is_said_as_here(remote, local) -> None:
    with pytest.raises(UsageError, match="there is no slice 7"):
        remote.predict(request(image_of(), slices=(7,)))
    assert remote.predict(request(make_phantom())).findings, "and the next run works"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (http("200 OK", b"<html>Welcome to nginx</html>", kind="text/html"), "server_version"),
        (http("200 OK", b'{"name": "mediscan", "version": "9", "api": 7, "study_versions": [4]}'), "server_version"),
        (http("200 OK", b'{"name": "other"}'), "server_version"),
        (http("200 OK", b"[]"), "server_version"),
        (http("404 Not Found", b"nothing", kind="text/plain"), "server_version"),
        (http("301 Moved", b"", "Location: http://elsewhere/"), "server_version"),
        (http("502 Bad Gateway", b"proxy", kind="text/html"), "server"),
        (http("500 Internal Server Error", b'{"code": "internal", "detail": "id 7."}'), "server"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "server_unreachable"),
        (b"", "server_unreachable"),
    ],
)
def test_strangers(answer, code) -> None:
    with scripted_server(answer) as url:
        assert code_of(lambda: remotes.test_connection(url)) == code


def test_a_full_queue_is_waited_for_as_long_as_it_asks(server, token) -> None:
    busy = http("429 Too Many Requests", b'{"code": "busy", "detail": "Full."}', "Retry-After: 1")
    broken = http("500 Internal Server Error", b'{"code": "internal", "detail": "id 7."}')
    with scripted_server(busy, busy, broken) as url:
        started = time.monotonic()
        stages: list[str] = []
        progress = CallbackProgress(lambda stage, done, total: stages.append(stage))
        assert code_of(lambda: ServerClient(url).predict(request(image_of()), progress)) == "server"
        assert time.monotonic() - started >= 2.0
        assert stages.count("waiting for the server") == 2
    with scripted_server(busy) as url:
        assert code_of(lambda: ServerClient(url, patience_s=1.5).predict(request(image_of()))) == "server_busy"
        stopped = CallbackProgress(lambda *_: None, lambda: True)
        with pytest.raises(CancelledError):
            ServerClient(url).predict(request(image_of()), stopped)


def test_answers_that_break_off_or_are_of_another_version() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\n\r\n"
    begun = head + b'{"stage": "slices", "done": 1, "total": 5}\n'
    for answer, code in (
        (begun, "server"),
        (begun + b'{"stage": "sl', "server_version"),
        (begun + b'{"prediction": {"schema_version": "99"}, "maps": null}\n', "server_version"),
        (begun + b"[1]\n", "server_version"),
    ):
        with scripted_server(answer) as url:
            assert code_of(lambda: ServerClient(url).predict(request(image_of()))) == code


def test_silence() -> None:
    with deaf_server() as url:
        assert code_of(lambda: remotes.test_connection(url, timeout_s=0.5)) == "server_timeout"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("", "server_unreachable"),
        ("127.0.0.1:8800", "server_unreachable"),
        ("ftp://host", "server_unreachable"),
        ("https://user:secret@host", "server_unreachable"),
        ("https://host:port", "server_unreachable"),
        ("https://host?x=1", "server_unreachable"),
        ("http://hospital.example:8800", "server_tls"),
        ("https://no-such-host.invalid", "server_unreachable"),
    ],
)
def test_addresses_that_cannot_be_used(url, code) -> None:
    assert code_of(lambda: remotes.test_connection(url, timeout_s=2)) == code
    with pytest.raises(ServerError) as caught:
        remotes.test_connection(url, timeout_s=2)
    assert "secret" not in str(caught.value)


def test_encrypted(models, tmp_path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make_certificate(certificate, key)
    with RunningServer(tmp_path / "data", models, tls_certificate=certificate, tls_key=key) as server:
        assert code_of(lambda: remotes.test_connection(server.url)) == "server_tls"
        assert remotes.test_connection(server.url, ca_file=certificate).version
        with Remote(server.url, ca_file=certificate) as remote:
            assert remote.predict(request(image_of(2))).slices
        plain = server.url.replace("https", "http")
        assert code_of(lambda: remotes.test_connection(plain)) == "server_unreachable"
    assert code_of(lambda: Remote("https://x", ca_file=key)) == "server_tls"
    assert code_of(lambda: Remote("https://x", ca_file=tmp_path / "nothing")) == "server_tls"


def make_certificate(certificate: Path, key: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    try:
        subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed; it makes the certificate of this test")
    assert ssl.create_default_context(cafile=certificate)


def test_token_files(tmp_path) -> None:
    path = tmp_path / "token"
    path.write_text("msc_1_x\nmore\n")
    assert read_token(path) == "msc_1_x"
    path.write_text("\n")
    with pytest.raises(UsageError, match="no token"):
        read_token(path)
    with pytest.raises(UsageError, match="cannot be read"):
        read_token(tmp_path / "nothing")


def test_the_token_is_not_on_a_command_line(remote, token) -> None:
    remote.predict(request(image_of()))
    process = Path(f"/proc/{remote.process_id}")
    if not process.is_dir():
        pytest.skip("no /proc here")
    assert token.encode() not in (process / "cmdline").read_bytes()
    assert token.encode() not in (process / "environ").read_bytes()


def test_completing_an_answer_keeps_its_maps(local) -> None:
    image = image_of()
    there = local.predict(request(replace(image, source="", identifiers={}, warnings=()), device="cpu"))
    assert the_same(completed(there, image), local.predict(request(image, device="cpu")))


# the command line


def test_the_command_line_asks_a_server(server, token, models, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("MEDISCAN_MODELS", str(models))
    shown = tmp_path / "token"
    shown.write_text(token)
    picture = tmp_path / "Röntgen.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (50, 60), dtype=np.uint8)).save(picture)
    (tmp_path / "bad.png").write_bytes(b"no image")
    common = ["predict", str(picture), str(tmp_path / "bad.png"), "--model", "toy-random"]
    clinical = ["--clinical", '{"crp_mg_per_l": 99}', "--overlay", str(tmp_path / "pictures")]
    asked = ["--server", server.url, "--token-file", str(shown), "--output", str(tmp_path / "a.json")]
    remote = CliRunner().invoke(main, [*common, *clinical, *asked])
    local = CliRunner().invoke(main, [*common, *clinical, "--device", "cpu", "--output", str(tmp_path / "b.json")])
    assert (remote.exit_code, local.exit_code) == (3, 3), remote.output
    there, here = (json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in ("a.json", "b.json"))
    for entry in (there[0], here[0]):
        entry["provenance"]["seconds"] = None
    assert there == here
    assert (tmp_path / "pictures" / "Röntgen.png").is_file()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--token-file", "x"], 2, "belong to --server"),
        (["--server", "http://127.0.0.1:9", "--device", "cpu"], 2, "for the server to choose"),
        (["--server", "http://127.0.0.1:9"], 2, "nobody answers there"),
        (["--server", "http://far.example"], 2, "unencrypted"),
        (["--server", "http://127.0.0.1:9", "--token-file", "nothing"], 2, "cannot be read"),
    ],
)
def test_what_the_command_line_says_of_servers(tmp_path, options, code, said) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes(b"x")
    done = CliRunner().invoke(main, ["predict", str(picture), *options])
    assert (done.exit_code, said in " ".join(done.output.split())) == (code, True), done.output
