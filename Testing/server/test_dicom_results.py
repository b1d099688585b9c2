"""Predictions as DICOM objects, made by the server from files that come along once more."""

from __future__ import annotations

import io
from email import message_from_bytes
from pathlib import Path

import httpx
import numpy as np
import pytest
from pydicom import dcmread
from serving import png

from dicom_files import PATIENT, write_series, write_study


def upload(*paths: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("files", (path.name, path.read_bytes())) for path in paths]


def predict(client: httpx.Client, *paths: Path, **fields: str) -> str:
    answer = client.post("/v1/predict", files=upload(*paths), data=fields)
    assert answer.status_code == 200, answer.text
    return answer.headers["location"].rpartition("/")[2]


def objects(answer: httpx.Response) -> dict[str, bytes]:
    """File name and content of each part, as any reader of MIME sees them."""
    head = f"Content-Type: {answer.headers['Content-Type']}\r\n\r\n".encode()
    parts = message_from_bytes(head + answer.content).get_payload()
    assert {part.get_content_type() for part in parts} == {"application/dicom"}
    return {part.get_filename(): part.get_payload(decode=True) for part in parts}


def test_the_objects_lie_in_the_study_of_the_image(client, tmp_path):
    path = write_study(tmp_path / "a.dcm")
    identity = predict(client, path)
    answer = client.post(f"/v1/predictions/{identity}/dicom", files=upload(path))
    assert answer.status_code == 200, answer.text
    found = {name: dcmread(io.BytesIO(content)) for name, content in objects(answer).items()}
    source = dcmread(path)
    assert {"sr.dcm", "seg.dcm"} <= set(found) and any(name.startswith("sc-") for name in found)
    for made in found.values():
        assert made.StudyInstanceUID == source.StudyInstanceUID and made.PatientID == PATIENT["PatientID"]
    again = objects(client.post(f"/v1/predictions/{identity}/dicom", files=upload(path)))
    assert {name: dcmread(io.BytesIO(content)).SOPInstanceUID for name, content in again.items()} == {
        name: made.SOPInstanceUID for name, made in found.items()
    }


def test_a_slice_of_a_series_gives_its_segmentation(client, tmp_path):
    volume = np.random.default_rng(3).normal(-500, 200, (4, 32, 32))
    folder = write_series(tmp_path / "ct", volume, [(0, 0, 3 * number) for number in range(4)])
    files = sorted(folder.iterdir())
    identity = predict(client, *files, slice="1")
    found = objects(client.post(f"/v1/predictions/{identity}/dicom", files=upload(*files)))
    assert "seg.dcm" in found and [name for name in found if name.startswith("pm-")]


def test_files_of_somebody_else_are_refused(client, tmp_path):
    identity = predict(client, write_study(tmp_path / "a.dcm"))
    other = write_study(tmp_path / "b.dcm", StudyInstanceUID="1.2.3", SOPInstanceUID="1.2.4")
    answer = client.post(f"/v1/predictions/{identity}/dicom", files=upload(other))
    assert answer.status_code == 409 and answer.json()["code"] == "source_mismatch"
    assert not [value for value in PATIENT.values() if len(value) > 3 and value in answer.text]


@pytest.mark.parametrize(
    ("content", "status"), [(b"GIF89a no DICOM", 415), (bytes(128) + b"DICM" + b"\xff" * 300, 422), (b"", 415)]
)
def test_what_is_no_dicom_is_refused(client, tmp_path, content, status):
    identity = predict(client, write_study(tmp_path / "a.dcm"))
    answer = client.post(f"/v1/predictions/{identity}/dicom", files={"files": ("x.dcm", content)})
    assert answer.status_code in (status, 415, 422) and answer.json()["detail"].endswith(".")


def test_a_prediction_of_a_picture_has_no_study(client, tmp_path):
    answer = client.post("/v1/predict", files={"files": ("x.png", png())})
    path = write_study(tmp_path / "a.dcm")
    refused = client.post(f"{answer.headers['location']}/dicom", files=upload(path))
    assert refused.status_code == 415 and "without DICOM identifiers" in refused.json()["detail"]


def test_nothing_of_the_files_stays(client, server, tmp_path):
    path = write_study(tmp_path / "a.dcm")
    identity = predict(client, path)
    assert client.post(f"/v1/predictions/{identity}/dicom", files=upload(path)).status_code == 200
    assert client.post(f"/v1/predictions/{'0' * 32}/dicom", files=upload(path)).status_code == 404
    left = [file for file in server.folder.rglob("*") if file.is_file()]
    values = [value.encode() for value in PATIENT.values() if len(value) > 5]
    assert left and not [file for file in left for value in values if value in file.read_bytes()]
