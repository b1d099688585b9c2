"""Who gets in, how often, and what is written down of it; and the command line around the server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest
from serving import PATIENCE, RunningServer, free_port, png

from MediScanLib.server.settings import is_loopback
from MediScanLib.server.storage.audit import AuditLog
from MediScanLib.server.storage.database import Database
from MediScanLib.server.storage.tokens import TokenStore


def predicted(client: httpx.Client) -> httpx.Response:
    return client.post("/v1/predict", files={"files": ("a.png", png())})


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, models):
    """A server with a token for each role."""
    folder = tmp_path_factory.mktemp("guarded") / "data"
    with RunningServer(folder, models, require_token=True, requests_per_minute=0) as server:
        store = TokenStore(Database(server.settings.database_url))
        server.tokens = {role: store.add(f"the {role}", role) for role in ("reader", "submitter", "admin")}
        server.store = store
        yield server


ALLOWED = {
    "GET /v1/info": "reader",
    "GET /v1/models": "reader",
    "GET /v1/models/toy-random": "reader",
    "GET /v1/jobs": "reader",
    "GET /v1/metrics": "reader",
    "GET /v1/reviews": "admin",
    "POST /v1/predict": "submitter",
    "POST /v1/jobs": "submitter",
    "POST /v1/reviews": "submitter",
    f"GET /v1/predictions/{'0' * 32}": "reader",
    f"DELETE /v1/predictions/{'0' * 32}": "submitter",
    f"POST /v1/predictions/{'0' * 32}/what-if": "submitter",
    f"POST /v1/predictions/{'0' * 32}/dicom": "submitter",
    f"GET /v1/predictions/{'0' * 32}/maps/covid": "reader",
    f"GET /v1/jobs/{'0' * 32}": "reader",
    f"GET /v1/jobs/{'0' * 32}/result": "reader",
    f"DELETE /v1/jobs/{'0' * 32}": "submitter",
}
ROLES = ["reader", "submitter", "admin"]


def test_the_table_names_every_endpoint(guarded) -> None:
    with guarded.client() as client:
        paths = client.get("/v1/openapi.json").json()["paths"]
    described = {f"{verb.upper()} {path}" for path, verbs in paths.items() for verb in verbs}
    open_to_all = {"GET /v1/health", "GET /v1/ready"}
    filled = {
        entry.replace("{identity}", "0" * 32).replace("{finding}", "covid").replace("{name}", "toy-random")
        for entry in described
    }
    assert filled - open_to_all == set(ALLOWED)


@pytest.mark.parametrize(("what", "needed"), ALLOWED.items(), ids=list(ALLOWED))
def test_each_role_may_do_what_it_may_and_no_more(guarded, what, needed) -> None:
    verb, path = what.split()
    body = {"json": {}} if verb == "POST" else {}
    with guarded.client() as nobody, guarded.client("msc_0_wrong") as wrong:
        for client in (nobody, wrong):
            refused = client.request(verb, path, **body)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Bearer")
            assert refused.json()["code"] == "token"
    for role in ROLES:
        with guarded.client(guarded.tokens[role]) as client:
            status = client.request(verb, path, **body).status_code
        allowed = ROLES.index(role) >= ROLES.index(needed)
        assert (status == 403) is not allowed
        assert status != 401


def test_a_body_is_not_even_read_for_strangers(guarded) -> None:
    with guarded.client() as client:
        assert predicted(client).status_code == 401
    with guarded.client(guarded.tokens["reader"]) as client:
        assert predicted(client).status_code == 403


def test_what_is_mine_is_not_for_others_to_end(guarded) -> None:
    other = guarded.store.add("another submitter", "submitter")
    with (
        guarded.client(guarded.tokens["submitter"]) as mine,
        guarded.client(other) as theirs,
        guarded.client(guarded.tokens["admin"]) as admin,
    ):
        where = predicted(mine).headers["location"]
        assert theirs.delete(where).status_code == 403
        assert admin.delete(where).status_code == 204
        job = mine.post("/v1/jobs", files={"files": ("a.png", png())}).json()["id"]
        assert theirs.delete(f"/v1/jobs/{job}").status_code == 403
        assert job not in [found["id"] for found in theirs.get("/v1/jobs").json()["jobs"]]
        assert job in [found["id"] for found in admin.get("/v1/jobs").json()["jobs"]]


def test_a_revoked_token_is_useless_at_once(guarded) -> None:
    token = guarded.store.add("short-lived", "reader")
    with guarded.client(token) as client:
        assert client.get("/v1/info").status_code == 200
        guarded.store.revoke("short-lived")
        assert client.get("/v1/info").status_code == 401


def test_the_audit_log_tells_who_did_what(guarded) -> None:
    with guarded.client(guarded.tokens["submitter"]) as client:
        where = predicted(client).headers["location"]
    log = AuditLog(guarded.store._database)
    log.verify()
    last = [entry for entry in log.last(20) if entry.event == "prediction.made"][-1]
    assert last.actor == "the submitter"
    assert last.details["prediction"] == where.rpartition("/")[2]
    assert last.details["model"] == "toy-random"
    assert any(entry.event == "access.refused" for entry in log.last(1000))
    for token in guarded.tokens.values():
        assert token not in guarded.said()


def test_the_first_token_closes_the_door_for_everybody_else(models, tmp_path) -> None:
    with RunningServer(tmp_path / "data", models) as server, server.client() as client:
        assert client.get("/v1/info").status_code == 200
        store = TokenStore(Database(server.settings.database_url))
        token = store.add("ann", "reader")
        assert client.get("/v1/info").status_code == 401
        assert client.get("/v1/info", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_who_asks_too_often_is_told_to_wait(models, tmp_path) -> None:
    with RunningServer(tmp_path / "data", models, requests_per_minute=30) as server, server.client() as client:
        answers = [client.get("/v1/info") for _ in range(40)]
        statuses = [answer.status_code for answer in answers]
        assert statuses[:20] == [200] * 20
        assert 429 in statuses
        assert int(answers[statuses.index(429)].headers["retry-after"]) >= 1
        assert client.get("/v1/health").status_code == 200
        guesses = [client.get("/v1/info", headers={"Authorization": f"Bearer msc_1_{i}"}) for i in range(5)]
        assert {guess.status_code for guess in guesses} <= {401, 429}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.evil.example", False),
    ],
)
def test_what_is_this_machine(host, expected) -> None:
    assert is_loopback(host) is expected


# the command line


@pytest.fixture
def mediscan(tmp_path, models):
    def call(*arguments: str, code: int = 0) -> str:
        environment = {**os.environ, "MEDISCAN_MODELS": str(models), "MEDISCAN_SERVER_FOLDER": str(tmp_path / "data")}
        done = subprocess.run(
            [sys.executable, "-m", "MediScanLib.cli", "serve", *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


def test_nobody_listens_to_the_world_without_a_token(mediscan) -> None:
    assert "there is no token" in mediscan("--host", "0.0.0.0", code=2)
    assert "there is no token" in mediscan("--require-token", code=2)
    assert "belong together" in mediscan("--tls-cert", "x", code=2)
    assert "sqlite or postgresql" in mediscan("--database", "mysql://x/y", code=2)


def test_tokens_and_audit_on_the_command_line(mediscan, tmp_path) -> None:
    said = mediscan("token", "add", "ann", "--role", "reader", "--days", "2")
    token = next(line for line in said.splitlines() if line.startswith("msc_"))
    assert "another name" in mediscan("token", "add", "ann", code=2)
    listed = mediscan("token", "list")
    assert "ann  reader  in use" in listed
    assert token not in listed
    mediscan("token", "revoke", "ann")
    assert "revoked" in mediscan("token", "list")
    whole = mediscan("audit", "verify")
    assert whole.startswith("2 entries, whole.")
    digest = whole.split()[-1]
    assert mediscan("audit", "verify", "--expect", digest) == whole
    assert "at its end were removed" in mediscan("audit", "verify", "--expect", "0" * 63 + "1", code=3)
    events = [json.loads(line)["event"] for line in mediscan("audit", "show").splitlines()]
    assert events == ["token.added", "token.revoked"]


def test_several_workers_answer_as_one_and_are_replaced(models, tmp_path) -> None:
    port = free_port()
    environment = {**os.environ, "MEDISCAN_MODELS": str(models), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "MediScanLib.cli", "serve", "--folder", str(tmp_path / "data")]
    command += ["--port", str(port), "--model", "toy-random", "--device", "cpu", "--workers", "2", "--rate", "0"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=Path(__file__).parents[2])
    try:
        url = f"http://127.0.0.1:{port}"
        wait_for(lambda: httpx.get(f"{url}/v1/ready", timeout=10).status_code == 200)
        children = wait_for(lambda: workers_of(process.pid, 2))
        for seed in range(6):  # a connection each, so that both get some
            answer = httpx.post(f"{url}/v1/predict", files={"files": ("a.png", png(seed))}, timeout=PATIENCE)
            assert answer.status_code == 200
            again = httpx.get(url + answer.headers["location"], timeout=PATIENCE)
            assert again.json() == answer.json(), "what one worker keeps the others know"
        assert 'outcome="done"} 8.0' in httpx.get(f"{url}/v1/metrics", timeout=PATIENCE).text, "2 to warm up, 6 asked"
        os.kill(children[0], signal.SIGKILL)
        wait_for(lambda: len(set(workers_of(process.pid, 2) or ()) - {children[0]}) == 2)
        wait_for(lambda: httpx.get(f"{url}/v1/info", timeout=10).status_code == 200)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(PATIENCE) in (0, -signal.SIGTERM), (tmp_path / "log").read_text()
        finally:
            process.kill()


def workers_of(parent: int, count: int) -> list[int]:
    def works(child: psutil.Process) -> bool:
        try:
            return "spawn_main" in " ".join(child.cmdline())
        except psutil.Error:  # it has just ended
            return False

    found = [child.pid for child in psutil.Process(parent).children() if works(child)]
    return sorted(found) if len(found) == count else []


def wait_for(condition):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            if found := condition():
                return found
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("it does not happen")
