"""`mediscan listen`, `poll` and `queue`, as an operator types them."""

from __future__ import annotations

import socket

import pytest
from click.testing import CliRunner
from nodes import MODEL, until
from orthanc import Orthanc, orthanc_program

from dicom_files import write_study
from MediScanLib.cli import main

CONFIG = f"""
folder: queue
listen: {{port: 0}}
study: {{quiet_s: 0}}
limits: {{free_mb: 0}}
destinations:
  pacs: {{kind: c-store, host: 127.0.0.1, port: 104, ae_title: ARCHIVE}}
rules:
  - {{name: side views, when: {{view: [LL, RL]}}, leave_alone: true}}
  - {{name: chest, when: {{modality: CR}}, model: {MODEL}, results: [sr], send_to: pacs}}
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "node.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def run(*arguments: object):
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_check_says_what_the_rules_do(config):
    said = run("queue", "--config", config, "check")
    assert said.exit_code == 0
    assert said.output.splitlines() == [
        "side views: view LL or RL -> left alone",
        f"chest: modality CR -> {MODEL}; sr to pacs",
    ]


def test_a_queue_that_never_ran_is_told(config):
    said = run("queue", "--config", config, "status")
    assert said.exit_code != 0 and "holds no queue" in said.output


@pytest.mark.parametrize(
    ("command", "change", "message"),
    [
        ("listen", (MODEL, "no-such-model"), "no-such-model"),
        ("listen", ("modality: CR", "modalty: CR"), "rules[1].when.modalty (rule 'chest')"),
        ("poll", ("", ""), "has no sources to poll"),
    ],
)
def test_what_cannot_start_says_why(config, command, change, message):
    config.write_text(CONFIG.replace(*change), encoding="utf-8")
    said = run(command, "--config", config)
    assert said.exit_code != 0 and message in said.output and "Traceback" not in said.output


def test_a_port_that_is_taken_is_told(config):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        said = run("listen", "--config", config, "--port", other.getsockname()[1])
    assert said.exit_code != 0 and "cannot listen there" in said.output


def test_polling_once_sends_everything_and_ends(make_settings, start_process, tmp_path):
    if orthanc_program() is None:
        pytest.skip("Orthanc with its DICOMweb plug-in is not installed")
    archive = Orthanc(tmp_path / "orthanc").start()
    try:
        study = archive.upload(write_study(tmp_path / "a.dcm"))
        web = {"kind": "stow-rs", "url": archive.web_url}
        settings = make_settings({"pacs": web}, sources={"archive": {"url": archive.web_url}})
        first = start_process("poll", settings, tmp_path / "process", "--once")
        assert first.process.wait(120) == 0, first.text()
        assert archive.modalities(study) == ["CR", "OT", "SEG", "SR"]
        assert "1 done" in first.queue("status") and first.queue("dead") == ""
        again = start_process("poll", settings, tmp_path / "process", "--once")
        assert again.process.wait(120) == 0
        assert again.text().count("fetched from archive") == 1  # by the first one
    finally:
        archive.kill()


def test_listening_and_polling_at_once(make_settings, start_process, tmp_path):
    if orthanc_program() is None:
        pytest.skip("Orthanc with its DICOMweb plug-in is not installed")
    archive = Orthanc(tmp_path / "orthanc").start()
    try:
        study = archive.upload(write_study(tmp_path / "a.dcm"))
        web = {"kind": "stow-rs", "url": archive.web_url}
        sources = {"archive": {"url": archive.web_url, "every_s": 0.5}}
        node = start_process("listen", make_settings({"pacs": web}, sources=sources), tmp_path / "process", "--poll")
        assert until(lambda: archive.modalities(study) == ["CR", "OT", "SEG", "SR"]), node.text()
        assert node.stop() == 0
    finally:
        archive.kill()
