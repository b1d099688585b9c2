"""A node beside a real archive: Orthanc, by DIMSE and by DICOMweb."""

from __future__ import annotations

import io
import socket
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from nodes import MODEL, until
from orthanc import Orthanc, orthanc_program
from pydicom import dcmread
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian
from pynetdicom import AE

from dicom_files import PATIENT, write_series, write_study
from MediScanLib.pacs.polling import Poller

RESULTS = ["OT", "SEG", "SR"]
IMAGES = np.random.default_rng(5).integers(0, 255, (400, 48, 40), np.uint8)


def by_store(archive: Orthanc) -> dict:
    return {"kind": "c-store", "host": "127.0.0.1", "port": archive.dicom_port, "ae_title": "ARCHIVE"}


def by_web(archive: Orthanc) -> dict:
    return {"kind": "stow-rs", "url": archive.web_url}


def radiograph(folder: Path, number: int, **elements) -> Path:
    root = f"1.2.826.0.1.3680043.8.498.77.{time.time_ns()}.{number}"
    elements = {"PatientID": f"P{number}", **elements}
    return write_study(
        folder / f"{number}.dcm",
        IMAGES[number % len(IMAGES)],
        SOPInstanceUID=f"{root}.1",
        SeriesInstanceUID=f"{root}.2",
        StudyInstanceUID=f"{root}.3",
        **elements,
    )


def complete(archive: Orthanc, study: str, images: tuple[str, ...] = ("CR",)) -> bool:
    return archive.modalities(study) == sorted([*images, *RESULTS])


@pytest.fixture
def settings(archive, make_settings, node_port):
    return make_settings({"pacs": by_store(archive)}, listen={"port": node_port})


@pytest.fixture
def own_archive(tmp_path):
    """Orthanc for one test."""
    if orthanc_program() is None:
        pytest.skip("Orthanc with its DICOMweb plug-in is not installed")
    running = Orthanc(tmp_path / "orthanc").start()
    yield running
    running.kill()


@pytest.mark.parametrize("way", [by_store, by_web])
def test_a_study_sent_in_comes_back_with_its_results(archive, make_settings, start_node, node_port, tmp_path, way):
    start_node(make_settings({"pacs": way(archive)}, listen={"port": node_port}))
    study = archive.upload(radiograph(tmp_path, 1))
    archive.send(study, "mediscan")
    assert until(lambda: complete(archive, study)), archive.modalities(study)
    datasets = [dcmread(io.BytesIO(content)) for _, content in archive.objects(study)]
    source = next(dataset for dataset in datasets if dataset.Modality == "CR")
    for dataset in datasets:
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        assert dataset.PatientID == "P1"
        assert str(dataset.PatientName) == PATIENT["PatientName"]
    report = next(dataset for dataset in datasets if dataset.Modality == "SR")
    assert report.VerificationFlag == "UNVERIFIED"
    evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert source.SOPInstanceUID in str(evidence)


def test_the_archive_can_reach_the_node(archive, settings, start_node):
    start_node(settings)
    answer = archive.client.post("/modalities/mediscan/echo", json={})
    assert answer.status_code == 200


def test_the_same_study_twice_gives_the_same_results_once(archive, settings, start_node, tmp_path, caplog):
    caplog.set_level("INFO", "mediscan.pacs")
    start_node(settings)
    study = archive.upload(radiograph(tmp_path, 1))
    archive.send(study, "mediscan")
    assert until(lambda: complete(archive, study))
    before = sorted(uid for uid, _ in archive.objects(study))
    caplog.clear()
    archive.send(study, "mediscan")  # with the results in it
    until(lambda: caplog.text.count("came back") == 3)
    time.sleep(1.5)  # longer than a study has to be quiet
    assert sorted(uid for uid, _ in archive.objects(study)) == before
    assert "predicted by" not in caplog.text and "are in pacs" not in caplog.text
    assert caplog.text.count("a result of MediScan came back") == 3


def test_an_archive_killed_in_the_middle_gets_everything_later(own_archive, make_settings, start_node, tmp_path):
    archive = own_archive
    running = start_node(make_settings({"pacs": by_store(archive)}))
    files = [radiograph(tmp_path / "in", number) for number in range(8)]
    send(running.port, files)
    assert until(lambda: len(archive.studies()) >= 2)
    archive.kill()
    assert until(lambda: not {"queued", "predicting"} & set(running.queue.counts().items))
    time.sleep(1)
    assert not running.is_idle()  # what cannot be sent waits, and is not given up
    archive.start()
    assert until(running.is_idle)
    assert sorted(Counter(tuple(archive.modalities(study)) for study in archive.studies()).items()) == [
        (tuple(RESULTS), 8)
    ]


def send(port: int, files: list[Path], *, title: str = "SENDER") -> list[int]:
    """Send files over one association; the status of each."""
    entity = AE(title)
    entity.add_requested_context(ComputedRadiographyImageStorage, [ExplicitVRLittleEndian])
    association = entity.associate("127.0.0.1", port, ae_title="MEDISCAN")
    assert association.is_established
    found = [int(association.send_c_store(dcmread(path)).Status) for path in files]
    association.release()
    return found


def hostile_files(folder: Path) -> list[Path]:
    """Files that a sender can send and a reader must survive."""
    promises = radiograph(folder, 1001, Rows=60000, Columns=60000)
    deep = radiograph(folder, 1002)
    dataset = dcmread(deep)
    dataset.PixelData = b"\xff" * 10
    dataset.NumberOfFrames = "2000000000"
    dataset.save_as(deep)
    return [promises, deep]


def test_two_hundred_studies_in_a_row_and_none_is_lost(archive, make_settings, start_node, node_port, tmp_path):
    settings = make_settings(
        {"pacs": by_store(archive)},
        listen={"port": node_port},
        predict={"workers": 2, "threads": 1},
        rules=[{"name": "all", "model": MODEL, "results": ["sr", "sc"], "send_to": "pacs"}],
    )
    running = start_node(settings)
    files = [radiograph(tmp_path / "in", number) for number in range(200)]
    before = set(archive.studies())
    studies = [archive.upload(path) for path in files]
    first = archive.client.post("/modalities/mediscan/store", json={"Resources": studies[:100], "Asynchronous": True})
    first.raise_for_status()
    with socket.create_connection(("127.0.0.1", running.port)) as garbage:  # no DICOM at all
        garbage.sendall(b"\x01\x00\xff\xff\xff\xff" + b"GET / HTTP/1.1\r\n" * 100)
    hostile = send(running.port, hostile_files(tmp_path / "hostile"))
    archive.client.post("/modalities/mediscan/store", json=studies[100:]).raise_for_status()
    assert until(lambda: all(archive.modalities(study) == ["CR", "OT", "SR"] for study in studies), 240)
    assert until(running.is_idle)
    assert len(set(archive.studies()) - before) == 200
    dead = running.queue.dead_letters()
    assert len(dead) == hostile.count(0x0000)  # what was taken and cannot be read is on the list, with the reason
    assert all(letter.message and letter.destination is None for letter in dead)


def test_a_node_killed_in_the_middle_goes_on(archive, settings, start_process, model_folder, tmp_path):
    first = start_process("listen", settings, tmp_path / "process")
    assert until(lambda: "listens on" in first.text()), first.text()
    studies = [archive.upload(radiograph(tmp_path, number)) for number in range(8)]
    archive.client.post("/modalities/mediscan/store", json=studies).raise_for_status()
    assert until(lambda: sum(complete(archive, study) for study in studies) >= 2)
    first.kill()
    done = sum(complete(archive, study) for study in studies)
    second = start_process("listen", settings, tmp_path / "process")
    assert until(lambda: all(complete(archive, study) for study in studies)), (done, second.text())
    assert "8 done" in second.queue("status")
    assert second.stop() == 0
    for value in [*PATIENT.values(), "P0"]:  # no line says who it was
        assert len(value) == 1 or value not in first.text() + second.text()


def test_polling_finds_a_study_once_and_answers_by_stow(own_archive, make_settings, start_node, tmp_path):
    archive = own_archive
    settings = make_settings({"pacs": by_web(archive)}, sources={"archive": {"url": archive.web_url, "page": 3}})
    running = start_node(settings, listening=False)
    node = running.node
    study, *_ = [archive.upload(radiograph(tmp_path, number)) for number in range(5)]  # two pages
    poller = Poller("archive", settings.sources["archive"], node.intake, node.connections, settings.retry, node.wake)
    assert poller.look() == 5
    assert until(lambda: complete(archive, study))
    assert until(running.is_idle)
    assert poller.look() == 0  # the results that are there now are not taken for new images
    requests = []
    poller._session.hooks["response"].append(lambda answer, **_: requests.append(answer.url))
    assert poller.look() == 0
    assert not [url for url in requests if "/instances" in url]  # and nothing is even asked about them again


def test_a_volume_comes_back_with_segmentation_and_parametric_map(archive, settings, start_node, tmp_path):
    start_node(settings)
    volume = np.random.default_rng(1).normal(-500, 200, (6, 32, 32))
    root = f"1.2.826.0.1.3680043.8.498.78.{time.time_ns()}"
    folder = write_series(
        tmp_path / "ct",
        volume,
        [(0, 0, 3 * index) for index in range(6)],
        StudyInstanceUID=f"{root}.1",
        SeriesInstanceUID=f"{root}.2",
    )
    for number, path in enumerate(sorted(folder.iterdir())):
        dataset = dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{root}.3.{number}"
        dataset.save_as(path)
        study = archive.upload(path)
    archive.send(study, "mediscan")
    assert until(lambda: {"SR", "SEG", "OT"} <= set(archive.modalities(study)))
    datasets = [dcmread(io.BytesIO(content)) for _, content in archive.objects(study)]
    reports = [dataset for dataset in datasets if dataset.Modality == "SR"]
    assert len(reports) == 1  # one for the volume, and not one a slice
    maps = [dataset for dataset in datasets if dataset.SOPClassUID.name == "Parametric Map Storage"]
    assert maps and int(maps[0].NumberOfFrames) == 6


@pytest.mark.shared_data
def test_real_files_come_back_too(archive, make_settings, start_node, node_port, shared_data):
    """A radiograph in JPEG 2000, another in JPEG, an ultrasound with two frames, and a CT with 28 slices."""
    files = shared_data / "dicom/files"
    chosen = [
        files / "pydicom_data__RG1_J2KI.dcm",
        files / "txrv__1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm",
        files / "pydicom_data__OBXXXX1A_2frame.dcm",
        *sorted((shared_data / "dicom/ct_ge_variable_gap").glob("*")),
    ]
    settings = make_settings(
        {"pacs": by_store(archive)},
        listen={"port": node_port},
        rules=[{"name": "all", "send_to": "pacs", "secondary_captures": True}],  # with the model that is shipped
    )
    running = start_node(settings)
    studies = list(dict.fromkeys(archive.upload(path) for path in chosen if path.is_file()))
    assert len(studies) == 4
    for study in studies:
        archive.send(study, "mediscan")
    assert until(lambda: all("SR" in archive.modalities(study) for study in studies), 120)
    assert until(running.is_idle)
    kinds = [set(archive.modalities(study)) - {"CR", "US", "CT"} for study in studies]
    assert kinds == [set(RESULTS), set(RESULTS), {"OT", "SR"}, set(RESULTS)]  # frames without places give no SEG
    assert not running.queue.dead_letters()
