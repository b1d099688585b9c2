"""What is left when a server is killed, stopped, or one of several: nothing lost, nothing with two results."""

from __future__ import annotations

import json
import random
import signal
import threading
import time

import numpy as np
import pytest
from serving import RunningServer, dicom_slices, png, wait_for_job

from MediScanLib.prediction.exchange import Request
from MediScanLib.prediction.packing import MEDIA_TYPE, pack
from MediScanLib.server.storage.audit import AuditLog
from MediScanLib.server.storage.database import Database
from MediScanLib.server.storage.studies import StudyStore
from MediScanLib.study.image import MedicalImage


def submit_volume(client, slices: int) -> str:
    pixels = np.random.default_rng(slices).integers(-500, 500, (slices, 32, 32)).astype(np.float32)
    head, body = pack(Request(MedicalImage(pixels, modality="CT"), model="toy-random"))
    answer = client.post("/v1/jobs", content=head + bytes(body), headers={"Content-Type": MEDIA_TYPE})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def submit_batch(client, count: int) -> str:
    files = [("files", (f"{number}.png", png(number))) for number in range(count)]
    answer = client.post("/v1/jobs", files=files, data={"kind": "batch"})
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def results(database_url: str, jobs: list[str]) -> dict[str, str]:
    """What every study of the jobs says, as it lies in the database."""
    database = Database(database_url)
    studies = StudyStore(database)
    found = {
        study.id: json.dumps(study.prediction)
        for job in jobs
        for study in studies.of_job(job)
        if study.prediction is not None
    }
    database.close()
    return found


def test_jobs_survive_being_killed_at_any_moment(database_url, models, tmp_path) -> None:
    chance = random.Random(4)
    server = RunningServer(tmp_path / "data", models, database=database_url, lease_s=1.0, attempts=100)
    with server:
        with server.client() as client:
            jobs = [submit_batch(client, 12), submit_volume(client, 300), submit_batch(client, 10)]
        before: dict[str, str] = {}
        for _ in range(3):
            time.sleep(chance.uniform(0.0, 0.8))
            server.stop(signal.SIGKILL)
            found = results(database_url, jobs)
            assert {study: found[study] for study in before} == before, "a result that was given never changes"
            before = found
            server.start()
        with server.client() as client:
            for job in jobs:
                ended = wait_for_job(client, job)
                assert (ended["state"], ended["studies_done"]) == ("done", ended["studies"])
                outcomes = client.get(f"/v1/jobs/{job}/result").json()["results"]
                assert len(outcomes) == ended["studies"]
                assert all(outcome["prediction"] for outcome in outcomes)
        found = results(database_url, jobs)
        assert len(found) == 23
        assert {study: found[study] for study in before} == before
    assert AuditLog(Database(database_url)).verify()[0] > 0


def test_a_submission_that_is_cut_off_is_there_as_a_whole_or_not_at_all(models, tmp_path) -> None:
    with RunningServer(tmp_path / "data", models, lease_s=1.0) as server:
        answered: list[str] = []

        def submit_on() -> None:
            try:
                with server.client() as client:
                    while True:
                        answered.append(submit_batch(client, 3))
            except Exception:  # the server was killed
                return

        thread = threading.Thread(target=submit_on)
        thread.start()
        while len(answered) < 3:
            time.sleep(0.05)
        server.stop(signal.SIGKILL)
        thread.join()
        server.start()
        with server.client() as client:
            listed = [job["id"] for job in client.get("/v1/jobs").json()["jobs"]]
            assert set(answered) <= set(listed), "what was promised is there"
            for job in listed:
                assert wait_for_job(client, job)["studies_done"] == 3


def test_a_stop_puts_back_what_it_cannot_finish(models, tmp_path) -> None:
    with RunningServer(tmp_path / "data", models, stop_s=0.5, lease_s=60.0) as server:
        with server.client() as client:
            job = submit_volume(client, 600)
            wait_for_job(client, job, "running")
        server.stop(signal.SIGTERM)
        with_server = Database(server.settings.database_url)
        from MediScanLib.server.storage.jobs import JobStore

        left = JobStore(with_server, 60.0, 3, 100.0, 10).get(job)
        assert (left.state, left.attempt) == ("queued", 0)
        assert list((tmp_path / "data" / "Uploads").iterdir()) == []
        server.start()
        with server.client() as client:
            assert wait_for_job(client, job)["state"] == "done"


def test_a_stop_finishes_what_somebody_waits_for(models, tmp_path) -> None:
    with RunningServer(tmp_path / "data", models) as server:
        answers: list[int] = []
        files = [("files", (f"{number}", content)) for number, content in enumerate(dicom_slices(30, 64))]

        def ask() -> None:
            with server.client() as client:
                answers.append(client.post("/v1/predict", files=files, data={"slice": "3"}).status_code)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        with server.client() as client:
            while "mediscan_held 0.0" in client.get("/v1/metrics").text and not answers:
                time.sleep(0.01)
        server.stop(signal.SIGTERM)
        for thread in threads:
            thread.join()
        assert answers.count(200) >= 1
        assert set(answers) <= {200, 503}


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_several_servers_share_one_database(database_url, models, tmp_path) -> None:
    common = {"database": database_url, "lease_s": 1.0, "attempts": 100}
    with (
        RunningServer(tmp_path / "one", models, **common) as one,
        RunningServer(tmp_path / "two", models, **common) as two,
    ):
        with one.client() as client:
            jobs = [submit_volume(client, 40 + number) for number in range(6)] + [submit_volume(client, 300)]
            wait_for_job(client, jobs[1], "running", "done")
        one.stop(signal.SIGKILL)
        with two.client() as client:
            assert [wait_for_job(client, job)["state"] for job in jobs] == ["done"] * 7
            kept = client.get(f"/v1/jobs/{jobs[0]}/result").json()["results"][0]["id"]
            assert client.get(f"/v1/predictions/{kept}/maps/covid").status_code == 200
    assert len(results(database_url, jobs)) == 7


def test_results_expire(models, tmp_path) -> None:
    with RunningServer(tmp_path / "data", models, keep_s=2.0) as server, server.client() as client:
        where = client.post("/v1/predict", files={"files": ("a.png", png())}).headers["location"]
        job = submit_batch(client, 2)
        wait_for_job(client, job)
        end = time.monotonic() + 60
        database = Database(server.settings.database_url)
        while time.monotonic() < end:
            with database.reading() as connection:
                from sqlalchemy import text

                left = [
                    connection.execute(text(f"SELECT count(*) FROM {table}")).scalar_one()
                    for table in ("chunks", "studies", "jobs")
                ]
            if left == [0, 0, 0]:
                break
            time.sleep(0.2)
        assert left == [0, 0, 0]
        assert client.get(where).status_code == 404
        assert client.get(f"/v1/jobs/{job}").status_code == 404
