"""A real server, asked over real sockets."""

from __future__ import annotations

import io
import json
import socket
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import SimpleITK
from PIL import Image
from serving import RunningServer, dicom_slices, png, wait_for_job

from MediScanLib.prediction.exchange import Request
from MediScanLib.prediction.heatmaps import HeatMaps
from MediScanLib.prediction.packing import MEDIA_TYPE, pack
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.result import Prediction
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.reading import read_image
from MediScanLib.study.record import ClinicalRecord


def predicted(client: httpx.Client, content: bytes | None = None, **data: str) -> httpx.Response:
    return client.post("/v1/predict", files={"files": ("a.png", content or png())}, data=data)


def without_times(prediction: dict) -> dict:
    return {**prediction, "provenance": {**prediction["provenance"], "seconds": None}}


@pytest.fixture(scope="module")
def local(models, monkeypatch_module):
    monkeypatch_module.setenv("MEDISCAN_MODELS", str(models))
    return Predictor.load("toy-random", "cpu")


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def volume(slices: int = 6) -> MedicalImage:
    rng = np.random.default_rng(2)
    pixels = np.round(rng.normal(0, 300, (slices, 40, 50))).astype(np.float32)
    return MedicalImage(pixels, spacing=(0.5, 0.7, 2.0), origin=(1, 2, 3), modality="CT", units="HU", source="v")


# the server itself


def test_health_ready_and_info(client) -> None:
    assert client.get("/v1/health").json() == {"status": "ok"}
    assert client.get("/v1/ready").json() == {"status": "ready"}
    info = client.get("/v1/info").json()
    assert (info["name"], info["role"], info["device"]) == ("mediscan", "admin", "cpu")
    assert [model["name"] for model in info["models"]] == ["toy-random"]
    assert info["models"] == client.get("/v1/models").json()
    assert client.get("/v1/models/toy-random").json()["labels"] == info["models"][0]["labels"]


def test_the_page_for_people_loads_nothing_from_elsewhere(client) -> None:
    answer = client.get("/v1/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert "/v1/predictions/{identity}/what-if" in answer.text
    assert "src=" not in answer.text
    assert "<script" not in answer.text
    assert "style-src 'sha256-" in answer.headers["content-security-policy"]


def test_every_response_has_security_headers(client) -> None:
    for answer in (client.get("/v1/health"), client.get("/v1/nothing"), predicted(client)):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "server" not in answer.headers
        assert not [name for name in answer.headers if name.startswith("access-control")]


# one image


def test_an_image_is_predicted_as_here(client, local) -> None:
    answer = predicted(client, clinical='{"age_years": 63, "crp_mg_per_l": "12 mg/dl"}', maps="true")
    assert answer.status_code == 200
    content = answer.json()
    maps = HeatMaps.from_json(json.dumps(content.pop("raw_maps")))
    here = local(read_image(png(), name="a.png"), ClinicalRecord(age_years=63, crp_mg_per_l=120))
    assert without_times(content) == without_times(here.to_dict())
    assert np.array_equal(maps.values, here.maps.values)
    kept = client.get(answer.headers["location"])
    assert kept.json() == content
    assert Prediction.model_validate(kept.json()).clinical.used["crp_mg_per_l"] == 120


def test_a_series_is_one_study_and_one_slice_of_it_can_be_asked_for(client) -> None:
    files = [("files", (f"IM{number}", content)) for number, content in enumerate(dicom_slices(5))]
    refused = client.post("/v1/predict", files=files)
    assert (refused.status_code, refused.json()["code"]) == (422, "volume")
    answer = client.post("/v1/predict", files=files, data={"slice": "2"})
    assert answer.status_code == 200
    assert answer.json()["image"]["shape"] == [5, 16, 16]
    assert answer.json()["clinical"]["prefilled"] == ["age_years", "sex"]
    assert [found["index"] for found in answer.json()["slices"]] in ([2], [])
    assert client.post("/v1/predict", files=files, data={"slice": "5"}).status_code == 422


def test_what_if(client, local) -> None:
    where = predicted(client, clinical='{"age_years": 20}').headers["location"]
    answer = client.post(f"{where}/what-if", json={"clinical": {"age_years": 90}})
    here = local(read_image(png(), name="a.png"), ClinicalRecord(age_years=90))
    assert without_times(answer.json()) == without_times(here.to_dict())
    assert client.post(f"{where}/what-if", json={"clinical": {"age_years": 900}}).status_code == 422
    assert client.post(f"{where}/what-if", json={"clinical": {}, "x": 1}).status_code == 422


def test_maps_as_picture_and_as_values(client, local) -> None:
    content = dicom_slices(1)[0]
    where = predicted(client, content).headers["location"]
    here = local(read_image(content, name="a.png"))
    picture = client.get(f"{where}/maps/pneumonia")
    assert picture.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).width > 300
    raw = client.get(f"{where}/maps/pneumonia", params={"format": "nrrd"})
    again = read_image(raw.content)
    assert np.array_equal(again.pixels, here.maps.on_image("pneumonia"))
    assert np.allclose(again.spacing, (0.7, 0.8, 2.0))
    assert again.origin == (-10, 20, 0)
    assert client.get(f"{where}/maps/scurvy").status_code == 404


def test_an_oblique_geometry_survives_the_nrrd(tmp_path, local) -> None:
    from scipy.spatial.transform import Rotation

    from MediScanLib.server.routes.maps import nrrd

    direction = tuple(Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix().ravel())
    image = MedicalImage(
        np.random.default_rng(0).random((3, 20, 30), dtype=np.float32), (0.5, 0.75, 3.0), (-7.0, 8.5, 9.0), direction
    )
    path = tmp_path / "map.nrrd"
    path.write_bytes(nrrd(local(image).maps, "covid", image))
    found = SimpleITK.ReadImage(str(path))
    assert np.allclose(found.GetSpacing(), image.spacing)
    assert np.allclose(found.GetOrigin(), image.origin)
    assert np.allclose(found.GetDirection(), direction)


def test_a_prediction_can_be_forgotten_and_need_not_be_kept(client) -> None:
    assert "location" not in predicted(client, keep="false").headers
    where = predicted(client).headers["location"]
    assert client.delete(where).status_code == 204
    assert client.get(where).status_code == 404
    assert client.get(f"{where}/maps/covid").status_code == 404


# volumes and batches


def test_a_volume_is_a_job(client, local) -> None:
    files = [("files", (f"IM{number}", content)) for number, content in enumerate(dicom_slices(12))]
    answer = client.post("/v1/jobs", files=files, data={"clinical": '{"crp_mg_per_l": 50}'})
    assert answer.status_code == 202
    where = answer.headers["location"]
    assert client.get(f"{where}/result").status_code in (200, 409)
    job = wait_for_job(client, answer.json()["id"])
    assert (job["state"], job["studies_done"]) == ("done", 1)
    (result,) = client.get(f"{where}/result").json()["results"]
    assert len(result["prediction"]["slices"]) == 12
    assert client.get(f"/v1/predictions/{result['id']}/maps/covid", params={"format": "nrrd"}).status_code == 200
    again = client.post(f"/v1/predictions/{result['id']}/what-if", json={"clinical": {"crp_mg_per_l": 51}})
    assert again.json()["image"]["shape"] == [12, 16, 16]
    assert job["id"] in [other["id"] for other in client.get("/v1/jobs").json()["jobs"]]


def test_a_batch_goes_on_after_a_bad_file(client) -> None:
    files = [("files", ("a.png", png(1))), ("files", ("b.txt", b"no image")), ("files", ("c.png", png(2)))]
    clinical = json.dumps([{"input": "a.png", "age_years": 3}, {"input": "c.png", "age_years": 5}])
    answer = client.post("/v1/jobs", files=files, data={"kind": "batch", "clinical": clinical})
    job = wait_for_job(client, answer.json()["id"])
    results = client.get(f"/v1/jobs/{job['id']}/result").json()["results"]
    assert [result["input"] for result in results] == ["a.png", "b.txt", "c.png"]
    assert results[1]["error"]["code"] == "not_an_image"
    assert [result["prediction"]["clinical"]["used"]["age_years"] for result in results if result["prediction"]] == [
        3,
        5,
    ]


def test_the_same_submission_under_a_key_is_the_same_job(client) -> None:
    first, again = (
        client.post("/v1/jobs", files={"files": ("a.png", png(3))}, headers={"Idempotency-Key": "k-1"})
        for _ in range(2)
    )
    assert first.json()["id"] == again.json()["id"]
    other = client.post("/v1/jobs", files={"files": ("a.png", png(4))}, headers={"Idempotency-Key": "k-1"})
    assert (other.status_code, other.json()["code"]) == (409, "key_reused")


def test_a_job_can_be_cancelled(client) -> None:
    head, pixels = pack(Request(volume(400), model="toy-random"))
    answer = client.post("/v1/jobs", content=head + bytes(pixels), headers={"Content-Type": MEDIA_TYPE})
    assert answer.status_code == 202
    wait_for_job(client, answer.json()["id"], "running", "done")
    assert client.delete(f"/v1/jobs/{answer.json()['id']}").status_code == 202
    assert wait_for_job(client, answer.json()["id"])["state"] == "cancelled"
    assert client.delete(f"/v1/jobs/{answer.json()['id']}").json()["code"] == "already_ended"
    assert client.get(f"/v1/jobs/{answer.json()['id']}/result").json()["results"] == []


# what goes wrong


@pytest.mark.parametrize(
    ("files", "data", "status", "code"),
    [
        ([("files", ("a.txt", b"hello"))], {}, 415, "not_an_image"),
        ([("files", ("a.png", b""))], {}, 422, "empty"),
        ([("files", ("a.zip", b"PK\x03\x04" + b"\0" * 400))], {}, 415, "unsupported"),
        ([("files", ("a.png", png()[:300]))], {}, 422, "truncated"),
        ([("files", ("a.png", png()))], {"clinical": '{"age_years": 900}'}, 422, "clinical"),
        ([("files", ("a.png", png()))], {"clinical": "/etc/passwd"}, 422, "clinical"),
        ([("files", ("a.png", png()))], {"clinical": '{"a'}, 422, "clinical"),
        ([("files", ("a.png", png()))], {"model": "../../etc"}, 404, "model_unknown"),
        ([("files", ("a.png", png()))], {"model": "mediscan-general"}, 404, "model_unknown"),
        ([("files", ("a.png", png()))], {"slice": "7"}, 422, "usage"),
        ([("files", ("a.png", png()))], {"slice": "-1"}, 422, "usage"),
        ([("files", ("a.png", png()))], {"keep": "perhaps"}, 422, "usage"),
        ([("files", ("a.png", png()))], {"colour": "red"}, 422, "usage"),
        ([("picture", ("a.png", png()))], {}, 422, "usage"),
        ([("files", ("a.png", png(0, (2000, 1500))))], {}, 413, "too_large"),
        ([("files", (f"{i}", b"x")) for i in range(21)], {}, 413, "too_many_files"),
        ([("files", ("a.png", b"\x89PNG\r\n\x1a\n" + b"0" * 9_000_000))], {}, 413, "too_large"),
    ],
)
def test_refusals_say_what_is_wrong(client, files, data, status, code) -> None:
    answer = client.post("/v1/predict", files=files, data=data)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (status, code), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(problem) == {"type", "title", "status", "code", "detail"}
    assert problem["detail"][-1] in ".)"


def test_bodies_that_are_no_form(client) -> None:
    assert client.post("/v1/predict", content=b"x").status_code == 415
    assert client.post("/v1/predict", json={}).status_code == 415
    broken = client.post(
        "/v1/predict", content=b"--x\r\nrubbish", headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert broken.status_code == 422
    assert client.post("/v1/predict", content=b"x", headers={"Content-Encoding": "gzip"}).status_code == 415


def test_a_body_that_does_not_tell_its_length_is_bounded_too(client) -> None:
    def endless():
        yield from (b"x" * 100_000 for _ in range(200))

    headers = {"Content-Type": MEDIA_TYPE}
    answer = client.post("/v1/predict", content=endless(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


@pytest.mark.parametrize(
    "path",
    ["/v1/predictions/..%2F..%2Fetc", "/v1/predictions/" + "0" * 32, "/v1/jobs/x", "/v1/models/..%2f..", "/../etc"],
)
def test_paths_reach_no_files(client, path) -> None:
    assert client.get(path).status_code in (404, 422)


def test_packed_studies_are_guarded(client) -> None:
    request = Request(volume(1), model="toy-random")
    head, pixels = pack(request)
    block = head + bytes(pixels)

    def sent(content: bytes) -> dict:
        answer = client.post("/v1/predict", content=content, headers={"Content-Type": MEDIA_TYPE})
        assert answer.status_code < 500
        return {"status": answer.status_code, **answer.json()}

    def changed(old: bytes, new: bytes) -> bytes:
        assert old in head
        text = head[24:].replace(old, new)
        return head[:16] + len(text).to_bytes(8, "little") + text + bytes(pixels)

    assert sent(block)["status"] == 200
    assert sent(b"")["code"] == "not_packed"
    assert sent(b"\x80\x04\x95")["code"] == "not_packed"
    assert sent(head[:16] + b"\xff" * 8 + head[24:])["code"] == "damaged"
    assert sent(block[:-1])["code"] == "damaged"
    assert sent(changed(b"[1,40,50]", b"[1,40,51]"))["code"] == "damaged"
    assert sent(changed(b"[1,40,50]", b"[99999,99999,9999]"))["code"] == "too_large"
    assert sent(changed(b"[1,40,50]", b"[-1,-40,50]"))["code"] == "damaged"
    assert sent(changed(b'"direction":[1.0', b'"direction":[2.0'))["code"] == "image"
    assert sent(changed(b'"spacing":[0.5', b'"spacing":[-0.5'))["code"] == "image"
    assert sent(changed(b'"age_years":null', b'"age_years":999'))["code"] == "clinical"
    assert sent(changed(b'"toy-random"', b'"/etc/passwd"'))["code"] == "model_unknown"
    assert sent(block[:-2] + b"\x11\x22")["code"] == "damaged"
    other = pack(Request(volume(2), model="toy-random"))[0]
    assert sent(other)["code"] == "pixels_needed"


def test_pages_from_elsewhere_get_nothing(client, server) -> None:
    assert client.get("/v1/info", headers={"Origin": "http://evil.example"}).status_code == 403
    assert client.get("/v1/info", headers={"Host": "evil.example"}).status_code == 403, "a name that was rebound"
    assert client.get("/v1/info", headers={"Origin": server.url}).status_code == 200
    assert client.options("/v1/info", headers={"Access-Control-Request-Method": "GET"}).status_code == 405


# under load


def test_images_that_come_together_share_a_pass(client, server) -> None:
    def batches() -> tuple[float, float]:
        lines = dict(
            line.rsplit(" ", 1) for line in client.get("/v1/metrics").text.splitlines() if not line.startswith("#")
        )
        return float(lines["mediscan_batch_size_count"]), float(lines["mediscan_batch_size_sum"])

    before = batches()
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda seed: predicted(client, png(seed), keep="false"), range(32)))
    after = batches()
    assert [answer.status_code for answer in answers] == [200] * 32
    assert after[1] - before[1] == 32
    assert after[0] - before[0] < 32, "at least two were predicted together"
    alone = [predicted(client, png(seed), keep="false").json() for seed in range(4)]
    for together, single in zip(answers, alone, strict=False):
        found, expected = (
            [finding["probability"] for finding in content["findings"]] for content in (together.json(), single)
        )
        assert np.allclose(found, expected, atol=1e-5)


@pytest.fixture(scope="module")
def narrow(models, tmp_path_factory):
    """A server with little room and little patience."""
    folder = tmp_path_factory.mktemp("narrow") / "data"
    with RunningServer(folder, models, max_queue=2, requests_per_minute=0, upload_time_s=3.0) as server:
        yield server


def test_a_full_house_says_when_to_come_back(narrow) -> None:
    with narrow.client() as client:
        with ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda seed: predicted(client, png(seed)), range(24)))
        assert {answer.status_code for answer in answers} == {200, 429}
        for answer in answers:
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["code"] == "busy"
        assert predicted(client).status_code == 200, "and afterwards all is well"


def test_slow_bodies_are_not_waited_for_forever(narrow) -> None:
    with socket.create_connection(("127.0.0.1", narrow.port), timeout=60) as slow:
        slow.sendall(
            f"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {MEDIA_TYPE}\r\n"
            "Content-Length: 1000\r\n\r\nabc".encode()
        )
        assert b" 408 " in slow.recv(4096).partition(b"\r\n")[0]
    with narrow.client() as client:
        assert client.get("/v1/ready").status_code == 200


def test_a_client_that_goes_takes_its_work_along(client, server) -> None:
    def counted(name: str) -> float:
        lines = client.get("/v1/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))

    failed = 'mediscan_predictions_total{model="toy-random",outcome="failed"}'
    stopped = counted(failed)
    head, pixels = pack(Request(volume(400), model="toy-random"))
    headers = {"Content-Type": MEDIA_TYPE, "Accept": "application/x-ndjson"}
    with (
        server.client() as impatient,
        impatient.stream("POST", "/v1/predict", content=head + bytes(pixels), headers=headers) as answer,
    ):
        lines = answer.iter_lines()
        while json.loads(next(lines))["stage"] != "slices":
            pass
    small, rest = pack(Request(volume(3), model="toy-random"))
    done = client.post("/v1/predict", content=small + bytes(rest), headers=headers)
    assert "prediction" in json.loads(done.text.strip().splitlines()[-1])
    assert counted(failed) == stopped + 1
    assert counted("mediscan_held ") == 0


def test_reviews(client) -> None:
    identity = predicted(client).headers["location"].rpartition("/")[2]
    said = {"prediction": identity, "agree": False, "corrected_label": "covid", "note": "unclear", "reader": "ann"}
    box = {"first": [0, 1, 2], "last": [0, 5, 6]}
    assert client.post("/v1/reviews", json={**said, "region": [box]}).status_code == 201
    found = client.get("/v1/reviews").json()["reviews"][-1]
    assert (found["note"], found["corrected_label"], found["model"]) == ("unclear", "covid", "toy-random")
    assert client.post("/v1/reviews", json={**said, "agree": True}).status_code == 422
    assert client.post("/v1/reviews", json={**said, "prediction": "0" * 32}).status_code == 404
    assert client.get("/v1/reviews", params={"model": "other"}).json()["reviews"] == []


def test_nothing_of_a_patient_is_in_logs_audit_or_metrics(client, server) -> None:
    name = "Geheim_Petra_1980.dcm"
    answer = client.post(
        "/v1/predict", files={"files": (name, dicom_slices(1)[0])}, data={"clinical": '{"temperature_c": 39.7123}'}
    )
    assert answer.status_code == 200
    client.post("/v1/predict", files={"files": (name, b"rubbish Geheim")})
    client.post("/v1/predict", files={"files": (name, dicom_slices(1)[0][:700])})
    from MediScanLib.server.storage.audit import AuditLog
    from MediScanLib.server.storage.database import Database

    log = AuditLog(Database(server.settings.database_url))
    count, _ = log.verify()
    audit = str(log.last(count))
    for place in (server.said(), audit, client.get("/v1/metrics").text):
        for secret in ("Geheim", "Petra", "SECRET", "39.7123"):
            assert secret not in place
    assert "prediction.made" in audit


def test_uploads_leave_nothing_behind(client, server) -> None:
    predicted(client)
    folders = list((server.folder / "Uploads").iterdir())
    assert len(folders) == 1
    assert list(folders[0].iterdir()) == []
    assert folders[0].stat().st_mode & 0o077 == 0
    assert (server.folder / "server.sqlite").stat().st_mode & 0o077 == 0


def test_a_machine_that_is_full_is_said_to_be(models, tmp_path) -> None:
    """Without a place for uploads, as on a full disk: a status that may pass, and no traceback with values."""
    with RunningServer(tmp_path / "data", models) as server, server.client() as client:
        (place,) = (server.folder / "Uploads").iterdir()
        place.rmdir()
        answer = predicted(client)
        assert (answer.status_code, answer.json()["code"]) == (503, "resources")
        assert answer.headers["x-request-id"] in answer.json()["detail"]
        place.mkdir()
        assert predicted(client).status_code == 200
