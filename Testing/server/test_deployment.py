"""What is deployed: the steps of image and unit run here, without a container, and the rules that images should keep.

The same `install.sh` and `start.sh` are run that the image and the unit run. Two things differ: pip is told by its own
environment to leave the dependencies out, which are those of the tests, and there is no other user.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shlex
import signal
import site
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
import yaml
from serving import PATIENCE, free_port

ROOT = Path(__file__).resolve().parents[2]
DEPLOYMENT = ROOT / "deployment"


@pytest.fixture(scope="module")
def prefix(tmp_path_factory):
    path = tmp_path_factory.mktemp("opt") / "mediscan"
    environment = {**os.environ, "PREFIX": str(path), "PYTHON": sys.executable, "PIP_NO_DEPS": "1"}
    done = subprocess.run([DEPLOYMENT / "install.sh"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (packages,) = path.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text("\n".join(site.getsitepackages()) + "\n", encoding="utf-8")
    return path


def environment_of(prefix, folder, **told):
    return {
        **os.environ,
        "PREFIX": str(prefix),
        "MEDISCAN_SERVER_FOLDER": str(folder),
        "OMP_NUM_THREADS": "1",
        **told,
    }


def command(environment, *arguments):
    """What start.sh prints for one of the server's commands."""
    done = subprocess.run([DEPLOYMENT / "start.sh", *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


class Started:
    """The server as start.sh starts it."""

    def __init__(self, environment, folder, *arguments):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [DEPLOYMENT / "start.sh", "--port", str(self.port), *arguments],
            env=environment,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ready(self):
        """As the health check of the image asks, by its own code."""
        test = json.loads(re.search(r"CMD (\[.*\])\n", (DEPLOYMENT / "Dockerfile").read_text())[1])[2]
        test = test.replace("127.0.0.1:8800", f"127.0.0.1:{self.port}")
        end = time.monotonic() + PATIENCE
        while subprocess.run([sys.executable, "-c", test], capture_output=True).returncode:
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < end
            time.sleep(0.3)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)


def test_installed_started_asked_stopped_and_started_again(prefix, database_url, tmp_path, shared_data):
    (tmp_path / "password").write_text("secret", encoding="utf-8")
    environment = environment_of(
        prefix,
        tmp_path,
        MEDISCAN_DATABASE=database_url,
        MEDISCAN_DATABASE_PASSWORD_FILE=str(tmp_path / "password"),
    )
    where = subprocess.run(
        [prefix / "bin" / "python", "-c", "import MediScanLib; print(MediScanLib.__file__)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    ).stdout
    assert str(prefix) in where, "the installed one, not the checkout"
    token = re.search(r"\S{40,}", command(environment, "token", "add", "room", "--role", "submitter"))[0]
    headers = {"Authorization": f"Bearer {token}"}
    image = next((shared_data / "images" / "nih").glob("*.jpg"))
    first = Started(environment, tmp_path, "--require-token")
    try:
        first.ready()
        assert httpx.get(f"{first.url}/v1/info").status_code == 401
        with image.open("rb") as stream:
            answer = httpx.post(
                f"{first.url}/v1/predict", headers=headers, files={"files": ("a.jpg", stream)}, timeout=PATIENCE
            )
        assert answer.status_code == 200, answer.text
    finally:
        first.stop()
    second = Started(environment, tmp_path, "--require-token")
    try:
        second.ready()
        again = httpx.get(f"{second.url}{answer.headers['Location']}", headers=headers, timeout=PATIENCE)
        assert again.status_code == 200
        assert again.json()["findings"] == answer.json()["findings"]
        assert "entries" in command(environment, "audit", "verify")
    finally:
        second.stop()


def test_other_machines_are_not_served_without_a_token(prefix, tmp_path):
    started = Started(environment_of(prefix, tmp_path), tmp_path, "--host", "0.0.0.0")  # as the image does
    _, said = started.process.communicate(timeout=PATIENCE)
    assert started.process.returncode != 0
    assert "token" in said


def instructions():
    text = (DEPLOYMENT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.split(maxsplit=1) for line in text.splitlines() if line and not line.startswith("#")]


def test_the_image_keeps_the_rules():
    found = instructions()
    kinds = [kind for kind, _ in found]
    for kind, rest in found:
        if kind == "FROM":
            assert re.match(r"\w+:\d+\.\d+\.\d+-[\w-]+( AS \w+)?$", rest), f"pinned: {rest}"
    assert "ADD" not in kinds
    last = kinds[len(kinds) - kinds[::-1].index("FROM") :]
    assert {"USER", "HEALTHCHECK", "ENTRYPOINT", "STOPSIGNAL"} <= set(last)
    users = [rest for kind, rest in found if kind == "USER"]
    assert all(user.split(":")[0] not in ("root", "0") for user in users)
    assert kinds.index("USER") > max(number for number, kind in enumerate(kinds) if kind == "RUN"), (
        "runs as nobody else"
    )
    for kind, rest in found:
        if kind in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(rest), list), "no shell in between"


def test_what_the_image_copies_is_not_ignored():
    kept = (DEPLOYMENT / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert kept[0] == "*", "nothing but what is named: no data, no history, no secrets"
    named = [line[1:] for line in kept if line.startswith("!")]
    for name in named:
        assert list(ROOT.glob(name)), name
    assert {"pyproject.toml", ".ci/constraints.txt", "MediScanLib"} <= set(named)


def test_the_composition_is_closed():
    composed = yaml.safe_load((DEPLOYMENT / "compose.yaml").read_text(encoding="utf-8"))
    server, database = composed["services"]["server"], composed["services"]["database"]
    assert server["read_only"]
    assert server["cap_drop"] == ["ALL"]
    assert all(port.startswith("127.0.0.1:") for port in server["ports"])
    assert "ports" not in database, "the database is reached by the server alone"
    assert server["depends_on"]["database"]["condition"] == "service_healthy"
    assert re.search(r":\d+\.\d+-", database["image"])
    for service in (server, database):
        assert "PASSWORD" not in " ".join(name for name in service["environment"] if not name.endswith("_FILE"))
        assert "no-new-privileges:true" in service["security_opt"]
    secret = composed["secrets"]["database-password"]["file"]
    assert f"deployment/{secret}" in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()


def test_the_unit_starts_what_is_installed():
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str
    unit.read(DEPLOYMENT / "mediscan.service", encoding="utf-8")
    service = unit["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert (DEPLOYMENT / Path(program).name).exists()
    assert "--require-token" in arguments
    assert (service["DynamicUser"], service["ProtectSystem"], service["NoNewPrivileges"]) == ("yes", "strict", "yes")
