"""The child process that predicts, and what happens to it."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from nodes import MODEL, until
from pydicom import dcmread

from dicom_files import write_study
from MediScanLib.config import InferenceConfig
from MediScanLib.errors import BundleError, EngineError, MediScanError
from MediScanLib.pacs.predicting import PredictingProcess
from MediScanLib.pacs.predicting_child import Task
from MediScanLib.pacs.settings import PredictSettings


@pytest.fixture
def task(tmp_path) -> Task:
    return Task(
        files=(str(write_study(tmp_path / "a.dcm")),),
        folder=str(tmp_path / "results"),
        name="item 1",
        model=MODEL,
        device="cpu",
        inference=InferenceConfig().model_dump(mode="json"),
        results=("sr", "seg", "sc"),
        memory=1024**3,
    )


@pytest.fixture
def process():
    made = PredictingProcess(PredictSettings(workers=1, threads=1))
    yield made
    made.close()


def test_results_lie_in_the_folder_and_repeat(process, task):
    first = process.predict(task)
    folder = Path(task.folder)
    (folder / "left over.dcm").write_bytes(b"from a run that was killed")
    assert process.predict(task) == first
    assert {path.name for path in folder.iterdir()} == {name for _, name in first.objects}
    for uid, name in first.objects:
        assert dcmread(folder / name).SOPInstanceUID == uid


def test_what_is_wrong_is_an_answer_and_the_child_lives_on(process, task, tmp_path):
    process.predict(task)
    child = process.process_id
    (tmp_path / "bad.dcm").write_bytes(b"nothing")
    with pytest.raises(MediScanError, match="item 1: is not an image"):
        process.predict(replace(task, files=(str(tmp_path / "bad.dcm"),)))
    with pytest.raises(BundleError, match="nowhere"):
        process.predict(replace(task, model="nowhere"))
    process.predict(task)
    assert process.process_id == child


def test_a_child_that_is_killed_is_replaced(process, task):
    def kill() -> None:
        psutil.Process(until(lambda: process.process_id)).kill()

    thread = threading.Thread(target=kill)
    thread.start()
    with pytest.raises(EngineError, match=r"ended \(-9\)"):
        process.predict(task)
    thread.join()
    assert process.predict(task).objects


def test_what_takes_too_long_is_ended(task):
    process = PredictingProcess(PredictSettings(workers=1, threads=1, time_limit_s=0.05))
    with pytest.raises(EngineError, match="time_limit_s"):
        process.predict(task)
    process.close()


def test_a_stop_ends_what_is_under_way(process, task):
    found: list[EngineError] = []

    def run() -> None:
        try:
            process.predict(task)
        except EngineError as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert until(lambda: process.process_id)
    time.sleep(0.1)
    process.stop()
    thread.join(10)
    assert [error.code for error in found] == ["stopping"]
