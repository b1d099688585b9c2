"""Servers and small files for their tests."""

from __future__ import annotations

import secrets
import shutil
import subprocess
from pathlib import Path

import pytest
from serving import RunningServer, make_bundle

from MediScanLib.server.storage.database import Database


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> Path:
    """A folder with a bundle."""
    folder = tmp_path_factory.mktemp("models")
    make_bundle(folder)
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory, models):
    """A server that asks for no token."""
    folder = tmp_path_factory.mktemp("server") / "data"
    with RunningServer(
        folder,
        models,
        max_files=20,
        max_body_bytes=8 * 1024**2,
        max_voxels=2_000_000,
        requests_per_minute=0,
        lease_s=3,
    ) as running:
        yield running


@pytest.fixture(scope="session")
def client(server):
    with server.client() as client:
        yield client


POSTGRESQL = Path("/usr/lib/postgresql")


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory):
    """The address of a PostgreSQL of this test's own: MEDISCAN_TEST_POSTGRESQL, or Debian's, started here."""
    import os
    import tempfile

    given = os.environ.get("MEDISCAN_TEST_POSTGRESQL")
    if given:
        yield given
        return
    found = sorted(POSTGRESQL.glob("*/bin/initdb"))
    binaries = found[-1].parent if found else Path(shutil.which("initdb") or "/nowhere").parent
    if not (binaries / "pg_ctl").exists():
        pytest.skip(
            "PostgreSQL is not installed: apt-get install postgresql, or set MEDISCAN_TEST_POSTGRESQL to a URL"
        )
    root = os.geteuid() == 0
    if root and shutil.which("runuser") is None:
        pytest.skip("PostgreSQL does not run as root, and there is no runuser to start it as another user")
    as_user = ["runuser", "-u", "postgres", "--"] if root else []
    folder = Path(tempfile.mkdtemp(prefix="mediscan-pg-"))  # pytest's own folders are closed to other users
    if root:
        shutil.chown(folder, "postgres")
    cluster = folder / "cluster"

    def call(*command: str) -> None:
        done = subprocess.run(
            [*as_user, *command], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
        )
        assert done.returncode == 0, done.stdout

    call(str(binaries / "initdb"), "-D", str(cluster), "-U", "mediscan", "-A", "trust", "--no-sync", "-E", "UTF8")
    options = f"-c listen_addresses='' -k {folder} -c fsync=off -c max_connections=50"
    call(str(binaries / "pg_ctl"), "-D", str(cluster), "-w", "-l", str(folder / "log.txt"), "-o", options, "start")
    try:
        yield f"postgresql://mediscan@/postgres?host={folder}"
    finally:
        call(str(binaries / "pg_ctl"), "-D", str(cluster), "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """An empty database of either kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'server.sqlite'}"
        return
    from sqlalchemy import text

    address = request.getfixturevalue("postgresql")
    name = f"test_{secrets.token_hex(6)}"
    maker = Database(address)
    with maker.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield address.replace("/postgres?", f"/{name}?")
    with maker.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    maker.close()
