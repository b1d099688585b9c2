"""Who gets at the page, who gets at whose study, and what is left of it. Without a browser."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from paging import RunningPage
from serving import PATIENCE, RunningServer, dicom_slices, free_port, png

from MediScanLib.server.storage.audit import AuditLog
from MediScanLib.server.storage.database import Database
from MediScanLib.server.storage.tokens import TokenStore

INSIDE = ("/ws", "/export/json", "/__page", "/vue.global.js", "/__mediscan/page.js")


@pytest.fixture(scope="module")
def server(tmp_path_factory, models):
    folder = tmp_path_factory.mktemp("open") / "data"
    with RunningServer(
        folder, models, requests_per_minute=0, max_body_bytes=1024**2, max_files=4, readers=1
    ) as running:
        yield running


@pytest.fixture(scope="module")
def page(server):
    with RunningPage(server, most_users=2, spare=1) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, models):
    """A page behind tokens, one for each role."""
    folder = tmp_path_factory.mktemp("guarded") / "data"
    with RunningServer(folder, models, require_token=True, requests_per_minute=0) as running:
        store = TokenStore(Database(running.settings.database_url))
        tokens = {role: store.add(f"the {role}", role) for role in ("reader", "submitter", "admin")}
        with RunningPage(running, failures_per_minute=3, idle_s=600) as gate:
            gate.tokens, gate.store = tokens, store
            yield gate


def wait_until(true, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if true():
            return
        time.sleep(0.1)
    raise AssertionError("it did not come to pass")


def user_processes(page: RunningPage) -> list[psutil.Process]:
    return [child for child in psutil.Process(page.process.pid).children() if _serves_a_user(child)]


def _serves_a_user(process: psutil.Process) -> bool:
    try:
        return "MediScanLib.web.user_process" in process.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):  # it ended in this moment
        return False


def listening(page: RunningPage) -> set[int]:
    """Ports of the processes behind the page."""
    return {
        connection.laddr.port
        for process in user_processes(page)
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def uploaded(client: httpx.Client, *files: tuple[str, bytes]) -> httpx.Response:
    return client.post("/upload", files=[("files", file) for file in files])


def test_nothing_without_signing_in(guarded):
    with guarded.client() as client:
        answer = client.get("/")
        assert answer.status_code == 401
        assert "Your token" in answer.text
        assert "research use" in answer.text
        assert not client.cookies
        for path in INSIDE:
            assert client.get(path).status_code == 410, path
        assert uploaded(client, ("a.png", png())).status_code == 410


def test_only_a_good_token_lets_in(guarded):
    with guarded.client() as client:
        answer = client.post("/sign-in", data={"token": "mediscan_000000000000_wrong"})
        assert answer.status_code == 401
        assert "not known" in answer.text
        answer = client.post("/sign-in", data={"token": guarded.tokens["reader"]})
        assert answer.status_code == 403
        assert "submitter" in answer.text
        assert client.get("/").status_code == 401
        answer = client.post("/sign-in", data={"token": guarded.tokens["submitter"]})
        assert answer.status_code == 303
        cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        answer = client.get("/")
        assert answer.status_code == 200
        assert "vue.global.js" in answer.text
        for path in INSIDE[2:]:
            assert client.get(path).status_code == 200, path
        client.post("/sign-out")
        assert client.get("/").status_code == 401
    entries = AuditLog(Database(guarded.server.settings.database_url)).last(100)
    events = [(entry.event, entry.actor) for entry in entries]
    assert ("access.refused", "127.0.0.1") in events
    assert ("web.signed_in", "the submitter") in events


def test_guessing_is_slowed_down(guarded):
    with guarded.client() as client:
        answers = [client.post("/sign-in", data={"token": f"mediscan_{n:012x}_x"}).status_code for n in range(5)]
    assert answers[-1] == 429


def test_a_revoked_token_ends_the_study(guarded):
    token = guarded.store.add("soon gone", "submitter")
    with guarded.client() as client:
        client.post("/sign-in", data={"token": token})
        assert client.get("/").status_code == 200
        assert client.get("/alive").status_code == 204
        guarded.store.revoke("soon gone")
        wait_until(lambda: client.get("/alive").status_code == 410, 20)
        assert client.get("/").status_code == 401


def test_pages_from_elsewhere_are_refused(page):
    for headers in (
        {"Host": "evil.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ):
        assert httpx.get(f"{page.url}/", headers=headers).status_code == 403, headers
    socket = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x"}
    assert httpx.get(f"{page.url}/ws", headers=socket).status_code == 403, "a browser always says where it comes from"


def test_headers_allow_nothing_from_elsewhere(page):
    with page.client() as client:
        answer = client.get("/")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "http" not in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert not re.findall(r'(?:src|href)="(?:https?:)?//', answer.text)
        client.post("/sign-out")


def test_two_browsers_and_no_third(page):
    with page.client() as first, page.client() as second, page.client() as third:
        assert first.get("/").status_code == 200
        assert second.get("/").status_code == 200
        answer = third.get("/")
        assert answer.status_code == 429
        assert "no room" in answer.text
        assert uploaded(first, ("mine.png", png())).status_code == 200
        assert second.get("/export/json").status_code == 422, "the second browser has no study"
        first.post("/sign-out")
        assert first.get("/alive").status_code == 410
        assert third.get("/").status_code == 200
        second.post("/sign-out")
        third.post("/sign-out")


def test_a_process_answers_nobody_but_the_gateway(page):
    with page.client() as client:
        client.get("/")
        wait_until(lambda: len(listening(page)) == 2)  # that of this browser and the spare one
        for port in listening(page):
            for path in ("/__page", "/index.html", "/ws", "/export/json", "/"):
                assert httpx.get(f"http://127.0.0.1:{port}{path}").status_code == 403, (port, path)
        client.post("/sign-out")


@pytest.mark.parametrize(
    ("files", "status", "said"),
    [
        ([("notes.txt", b"hello")], 415, "not an image"),
        ([("empty.png", b"")], 422, "empty"),
        ([("broken.png", png()[:200])], 422, "broken.png"),
        ([(f"{n}.png", png()) for n in range(5)], 413, "more than 4 files"),
        ([("large.png", bytes(2 * 1024**2))], 413, "larger than"),
    ],
)
def test_files_that_are_not_taken(page, files, status, said):
    with page.client() as client:
        client.get("/")
        answer = uploaded(client, *files)
        assert answer.status_code == status, answer.text
        assert said in answer.text
        assert list((page.server.folder / "Uploads").rglob("0000*")) == [], "nothing stays on the disk"
        client.post("/sign-out")


def test_an_upload_must_be_a_form(page):
    with page.client() as client:
        client.get("/")
        assert client.post("/upload", content=b"abc").status_code == 415
        client.post("/sign-out")


def test_the_log_names_no_patient(page):
    with page.client() as client:
        client.get("/")
        assert (
            uploaded(client, *((f"Petra-{n}.dcm", data) for n, data in enumerate(dicom_slices(3)))).status_code == 200
        )
        client.get("/export/json?name=Petra")
        client.post("/sign-out")
    log = page.said() + page.server.said()
    assert '"/upload"' in log
    for secret in ("Petra", "Geheim", "SECRET-ID-77"):
        assert secret not in log
    assert "mediscan_web" not in log


def test_silence_ends_a_study(server):
    with RunningPage(server, idle_s=3, spare=0) as page, page.client() as client:
        client.get("/")
        assert len(user_processes(page)) == 1
        wait_until(lambda: client.get("/alive").status_code == 410, 20)
        wait_until(lambda: not user_processes(page), 20)
        uploads = server.folder / "Uploads"  # a folder goes right after its process
        wait_until(lambda: not list(uploads.glob(f"{page.process.pid}-web-*/*")), 20)


def test_processes_end_with_the_gateway_even_by_kill(server):
    page = RunningPage(server, spare=1)
    with page.client() as client:
        client.get("/")
        wait_until(lambda: len(user_processes(page)) == 2)
        processes = user_processes(page)
    page.process.kill()
    page.process.wait()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


def test_the_command_serves_the_page(tmp_path, models):
    port, web_port = free_port(), free_port()
    environment = {**os.environ, "MEDISCAN_MODELS": str(models), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "MediScanLib.cli", "serve", "--folder", str(tmp_path / "data"), "--device", "cpu"]
    command += ["--model", "toy-random", "--port", str(port), "--web", "--web-port", str(web_port), "--web-users", "1"]
    process = subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    try:
        wait_until(lambda: process.poll() is None and _answers(f"http://127.0.0.1:{web_port}/alive"))
        assert httpx.get(f"http://127.0.0.1:{web_port}/", timeout=PATIENCE).status_code == 200
        children = psutil.Process(process.pid).children(recursive=True)
        assert any("MediScanLib.web.gateway" in child.cmdline() for child in children)
        wait_until(lambda: _answers(f"http://127.0.0.1:{port}/v1/ready"))
        process.send_signal(signal.SIGTERM)
        process.wait(PATIENCE)
        _, alive = psutil.wait_procs(children, timeout=20)
        assert not alive, alive
    finally:
        process.kill()
        said = process.communicate()[1]
    assert f"http://127.0.0.1:{web_port}/" in said
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert any(line.get("web") and line["route"] == "/" for line in lines)


def test_port_zero_is_refused(tmp_path):
    command = [sys.executable, "-m", "MediScanLib.cli", "serve", "--folder", str(tmp_path), "--port", "0", "--web"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert "--port 0" in done.stderr


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code < 500
    except httpx.TransportError:
        return False
