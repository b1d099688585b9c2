"""Engines answer alike wherever they run, can be stopped at any moment, and survive what happens to a child."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from MediScanLib.config import InferenceConfig
from MediScanLib.errors import BundleError, CancelledError, EngineError, MediScanError, ReadError, UsageError
from MediScanLib.network.bundle import load_bundle
from MediScanLib.prediction import engine as engines
from MediScanLib.prediction.engine import InProcess, Run, Worker
from MediScanLib.prediction.exchange import (
    Request,
    describe_error,
    error_from,
    has_pixels,
    read_request,
    write_request,
)
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.result import Prediction
from MediScanLib.progress import CallbackProgress
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.phantom import make_phantom
from MediScanLib.study.record import ClinicalRecord

PATIENCE = 120.0


def image_of(slices: int = 1) -> MedicalImage:
    rng = np.random.default_rng(3)
    return MedicalImage(
        rng.random((slices, 40, 50), dtype=np.float32),
        spacing=(0.5, 0.7, 2.0),
        origin=(1.0, -2.0, 3.0),
        modality="CT" if slices > 1 else "CR",
        window=(0.4, 0.9),
        identifiers={"study": "abc"},
        prefill={"age_years": 44.0, "sex": "F"},
        source="Röntgen.png",
        warnings=("careful",),
    )


@pytest.fixture(scope="module")
def worker():
    with Worker() as worker:
        yield worker


def wait_for(run: Run) -> Prediction:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        prediction = run.poll()
        if prediction is not None:
            return prediction
        time.sleep(0.02)
    raise AssertionError(f"still {run.step}")


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{process}/stat")
    return not (stat.is_file() and stat.read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] == "Z")


# what travels


@settings(max_examples=20, deadline=None)
@given(pixels=arrays(np.float32, (2, 3, 4), elements=st.floats(-1e6, 1e6, width=32)), text=st.text(max_size=20))
def test_a_request_arrives_as_it_was(tmp_path_factory, pixels, text) -> None:
    folder = tmp_path_factory.mktemp("request")
    image = replace(image_of(2), pixels=pixels, source=text)
    sent = Request(
        image, ClinicalRecord(age_years=63), "name", "cpu", range(1), InferenceConfig(confidence_threshold=0.7)
    )
    write_request(sent, folder)
    got = read_request(folder)
    assert np.array_equal(got.image.pixels, image.pixels)
    for part in fields(image):
        if part.name != "pixels":
            assert getattr(got.image, part.name) == getattr(image, part.name), part.name
    assert (got.record, got.model, got.device, got.slices) == (sent.record, "name", "cpu", [0])
    assert got.settings == sent.settings


def test_pickles_are_refused(tmp_path) -> None:
    write_request(Request(image_of()), tmp_path)
    np.save(tmp_path / "pixels.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        read_request(tmp_path)


@pytest.mark.parametrize(
    "error",
    [
        BundleError("no such model"),
        CancelledError("stopped"),
        ReadError("a.dcm", "is cut off", "Get it again.", code="truncated"),
    ],
)
def test_errors_keep_their_words_and_code(error) -> None:
    again = error_from(json.loads(json.dumps(describe_error(error))))
    assert (str(again), again.code) == (str(error), error.code)
    assert isinstance(again, MediScanError)
    if not isinstance(error, ReadError):
        assert type(again) is type(error)


def test_other_errors_become_an_engine_error() -> None:
    assert type(error_from(describe_error(RuntimeError("tensor of size 3")))) is EngineError
    assert "memory" in str(error_from(describe_error(MemoryError("17 GiB"))))


def test_a_request_may_come_without_pixels(tmp_path) -> None:
    image = image_of(2)
    write_request(Request(image, model="name"), tmp_path, with_pixels=False)
    assert not has_pixels(tmp_path)
    got = read_request(tmp_path, image.pixels)
    assert np.array_equal(got.image.pixels, image.pixels)
    assert (got.image.window, got.image.prefill, got.model) == (image.window, image.prefill, "name")
    with pytest.raises(EngineError, match="did not reach"):
        read_request(tmp_path)


# the same answer


@pytest.mark.parametrize("slices", [1, 3])
def test_the_child_says_what_this_process_says(worker, slices) -> None:
    request = Request(image_of(slices), ClinicalRecord(crp_mg_per_l=80), device="cpu")
    inside, outside = InProcess().predict(request), worker.predict(request)
    assert {**outside.to_dict(), "provenance": None} == {**inside.to_dict(), "provenance": None}
    assert outside.provenance.model_sha256 == inside.provenance.model_sha256
    assert inside.maps is not None
    assert outside.maps is not None
    assert outside.maps.labels == inside.maps.labels
    np.testing.assert_array_equal(outside.maps.on_image("pneumonia"), inside.maps.on_image("pneumonia"))


def test_the_model_stays_warm_and_progress_is_heard(worker) -> None:
    worker.predict(Request(image_of(), device="cpu"))
    first, heard = worker.process_id, []
    volume = replace(image_of(20))
    worker.predict(
        Request(volume, device="cpu", slices=range(10), settings=InferenceConfig(max_batch_size=1)),
        CallbackProgress(lambda *step: heard.append(step)),
    )
    assert worker.process_id == first
    stages = {stage for stage, _, _ in heard}
    assert "slices" in stages
    assert all(0 <= done <= total for _, done, total in heard)


def test_only_chosen_slices_and_no_maps(worker) -> None:
    settings = InferenceConfig(explainability=False)
    prediction = worker.predict(Request(image_of(5), device="cpu", slices=(1, 3), settings=settings))
    assert [score.index for score in prediction.slices] == [1, 3]
    assert prediction.maps is None


def test_two_models_stay_warm(worker, tmp_path) -> None:
    copy = shutil.copytree(load_bundle("mediscan-general").folder, tmp_path / "copy")
    for model in ("mediscan-general", str(copy), "mediscan-general"):
        assert worker.predict(Request(image_of(), model=model, device="cpu")).provenance.model == "mediscan-general"
    shutil.rmtree(copy)
    assert worker.predict(Request(image_of(), model=str(copy), device="cpu")).findings, "it is in memory"


def test_two_models_stay_warm_in_this_process(monkeypatch, tmp_path) -> None:
    load, loaded = Predictor.load, []

    def counted(model, *rest):
        loaded.append(model)
        return load(model, *rest)

    monkeypatch.setattr(Predictor, "load", counted)
    folder = load_bundle("mediscan-general").folder
    one, two, three = (str(shutil.copytree(folder, tmp_path / name)) for name in ("one", "two", "three"))
    engine = InProcess()
    for model in (one, two, one, three, one, two):
        assert engine.predict(Request(image_of(), model=model, device="cpu")).findings
    assert loaded == [one, two, three, two], "the one that was not used for longest goes first"
    engine.close()
    engine.predict(Request(image_of(), model=two, device="cpu"))
    assert loaded[-2:] == [two, two], "closing lets go of all"


# the same image again


def handed_over(worker: Worker, request: Request) -> tuple[Prediction, bool]:
    """What a worker says, and whether it wrote the pixels to the disk for that."""
    run = worker.submit(request)
    folder = worker._folder / f"run-{worker._number}"
    wrote = has_pixels(folder)
    return wait_for(run), wrote


def what_is_said(request: Request) -> dict:
    return {**InProcess().predict(request).to_dict(), "provenance": None}


@pytest.mark.parametrize("slices", [1, 3])
def test_the_same_image_is_handed_over_once(slices) -> None:
    image = image_of(slices)
    with Worker() as worker:
        first = Request(image, ClinicalRecord(crp_mg_per_l=80), device="cpu")
        assert handed_over(worker, first)[1]
        for record in (ClinicalRecord(temperature_c=40), ClinicalRecord(age_years=7)):
            request = Request(image, record, device="cpu")
            prediction, wrote = handed_over(worker, request)
            assert not wrote
            assert {**prediction.to_dict(), "provenance": None} == what_is_said(request)
        other = Request(image_of(slices).with_pixels(image.pixels[:, ::-1]), device="cpu")
        prediction, wrote = handed_over(worker, other)
        assert wrote
        assert {**prediction.to_dict(), "provenance": None} == what_is_said(other)
        assert handed_over(worker, first)[1], "the child keeps one image"


def test_the_header_may_change_and_the_pixels_stay(worker) -> None:
    handed_over(worker, Request(image_of(), device="cpu"))
    renamed = replace(image_of(), source="other.png", prefill={"age_years": 8.0}, spacing=(1.0, 0.7, 2.0))
    prediction, wrote = handed_over(worker, Request(renamed, device="cpu"))
    assert not wrote
    assert (prediction.input, prediction.clinical.used) == ("other.png", {"age_years": 8.0})
    assert {**prediction.to_dict(), "provenance": None} == what_is_said(Request(renamed, device="cpu"))


def test_pixels_changed_under_the_image_are_handed_over_anew(worker) -> None:
    pixels = np.array(image_of().pixels)
    image = replace(image_of(), pixels=pixels)
    before, _ = handed_over(worker, Request(image, device="cpu"))
    pixels[:, 10:20] = 5
    after, wrote = handed_over(worker, Request(image, device="cpu"))
    assert wrote
    assert after.probabilities != before.probabilities
    assert {**after.to_dict(), "provenance": None} == what_is_said(Request(image, device="cpu"))


def test_another_model_sees_the_image_that_is_kept(worker, tmp_path) -> None:
    copy = shutil.copytree(load_bundle("mediscan-general").folder, tmp_path / "copy")
    handed_over(worker, Request(image_of(), device="cpu"))
    prediction, wrote = handed_over(worker, Request(image_of(), model=str(copy), device="cpu"))
    assert not wrote
    assert prediction.probabilities == InProcess().predict(Request(image_of(), device="cpu")).probabilities


def test_a_failed_run_keeps_the_image(worker) -> None:
    with pytest.raises(BundleError):
        worker.predict(Request(image_of(2), model="nowhere", device="cpu"))
    prediction, wrote = handed_over(worker, Request(image_of(2), device="cpu"))
    assert not wrote
    assert len(prediction.slices) == 2


def test_pixels_that_did_not_arrive_are_handed_over_again(worker) -> None:
    handed_over(worker, Request(image_of(), device="cpu"))
    image = replace(image_of(2))
    run = worker.submit(Request(image, device="cpu"))
    damaged = worker._folder / f"run-{worker._number}" / "pixels.npy"
    try:
        damaged.write_bytes(b"no array")  # as if the disk had been full
        wait_for(run)
    except (EngineError, FileNotFoundError):
        pass
    for image in (image_of(), image_of(2)):
        prediction, _ = handed_over(worker, Request(image, device="cpu"))
        assert {**prediction.to_dict(), "provenance": None} == what_is_said(Request(image, device="cpu"))


@pytest.mark.parametrize("how", ["killed", "closed", "cancelled"])
def test_a_new_child_is_handed_the_image(how, monkeypatch) -> None:
    request = Request(image_of(), ClinicalRecord(crp_mg_per_l=80), device="cpu")
    with Worker() as worker:
        handed_over(worker, request)
        child = worker.process_id
        assert child is not None
        if how == "killed":
            os.kill(child, signal.SIGKILL)
            while worker.process_id is not None:
                time.sleep(0.01)
        elif how == "closed":
            worker.close()
        else:
            monkeypatch.setattr(engines, "GRACE_SECONDS", 0.0)
            run = worker.submit(replace(request, settings=InferenceConfig(max_batch_size=1)))  # loads the model again
            run.cancel()
            with pytest.raises(CancelledError):
                wait_for(run)
        prediction, wrote = handed_over(worker, request)
        assert wrote
        assert worker.process_id not in (None, child)
        assert {**prediction.to_dict(), "provenance": None} == what_is_said(request)


def test_a_child_that_dies_with_the_image_is_replaced() -> None:
    request = Request(image_of(), device="cpu")
    with Worker() as worker:
        handed_over(worker, request)
        run = worker.submit(request)
        os.kill(worker.process_id, signal.SIGKILL)
        with pytest.raises(EngineError):
            wait_for(run)
        prediction, wrote = handed_over(worker, request)
        assert wrote
        assert {**prediction.to_dict(), "provenance": None} == what_is_said(request)


def test_a_cancelled_run_does_not_confuse_what_is_kept(worker) -> None:
    one_by_one = InferenceConfig(max_batch_size=1)
    volume = Request(image_of(300), device="cpu", settings=one_by_one)
    run = worker.submit(volume)
    while run.step.stage != "slices":
        assert run.poll() is None
    run.cancel()
    with pytest.raises(CancelledError):
        wait_for(run)
    again = replace(volume, slices=(0, 299))
    prediction, wrote = handed_over(worker, again)
    assert not wrote
    assert {**prediction.to_dict(), "provenance": None} == what_is_said(again)


# what goes wrong


def test_a_failure_is_told_and_the_child_goes_on(worker) -> None:
    with pytest.raises(BundleError, match="nowhere"):
        worker.predict(Request(image_of(), model="nowhere", device="cpu"))
    child = worker.process_id
    with pytest.raises(UsageError, match="there is no slice 7"):
        worker.predict(Request(image_of(), device="cpu", slices=(7,)))
    assert worker.process_id == child
    assert worker.predict(Request(make_phantom(), device="cpu")).findings


def test_one_run_at_a_time(worker) -> None:
    run = worker.submit(Request(image_of(), device="cpu"))
    with pytest.raises(UsageError, match="already"):
        worker.submit(Request(image_of(), device="cpu"))
    wait_for(run)
    with pytest.raises(UsageError, match="has ended"):
        run.poll()


def test_a_cancelled_run_ends_soon_and_the_next_one_works(worker) -> None:
    worker.predict(Request(image_of(), device="cpu"))
    one_by_one = InferenceConfig(max_batch_size=1)
    run = worker.submit(Request(image_of(400), device="cpu", settings=one_by_one))
    while run.step.stage != "slices":
        assert run.poll() is None
    child = worker.process_id
    run.cancel()
    with pytest.raises(CancelledError):
        wait_for(run)
    assert run.finished
    assert worker.process_id == child, "between two slices it stops by itself"
    assert worker.predict(Request(image_of(), device="cpu")).findings


def test_a_run_that_does_not_listen_is_ended(monkeypatch) -> None:
    monkeypatch.setattr(engines, "GRACE_SECONDS", 0.0)  # as if it took longer than that to stop
    with Worker() as worker:
        run = worker.submit(Request(image_of(), device="cpu"))
        child = worker.process_id
        assert child is not None
        run.cancel()
        with pytest.raises(CancelledError, match="loads the model again"):
            wait_for(run)
        assert not alive(child)
        assert worker.predict(Request(image_of(), device="cpu")).findings


def test_a_killed_child_is_a_message_and_the_next_run_works() -> None:
    with Worker() as worker:
        run = worker.submit(Request(image_of(), device="cpu"))
        child = worker.process_id
        assert child is not None
        os.kill(child, signal.SIGKILL)
        with pytest.raises(EngineError, match="memory was full"):
            wait_for(run)
        assert worker.predict(Request(image_of(), device="cpu")).findings
        assert worker.process_id not in (None, child)


def test_a_child_that_cannot_work_says_what_it_said(tmp_path) -> None:
    with Worker(environment={**os.environ, "PYTHONPATH": str(tmp_path)}) as worker:
        (tmp_path / "pydantic.py").write_text("raise ImportError('no pydantic here')", encoding="utf-8")
        run = worker.submit(Request(image_of(), device="cpu"))
        with pytest.raises(EngineError, match="no pydantic here"):
            wait_for(run)
    with Worker(str(tmp_path / "no-python")) as worker, pytest.raises(EngineError, match="cannot be started"):
        worker.submit(Request(image_of()))


def test_closing_leaves_nothing() -> None:
    worker = Worker()
    run = worker.submit(Request(image_of(), device="cpu"))
    child, folder = worker.process_id, worker._folder
    assert child is not None
    assert folder is not None
    assert folder.stat().st_mode & 0o077 == 0, "nobody else looks at patients' images"
    worker.close()
    assert not alive(child)
    assert not folder.exists()
    with pytest.raises(EngineError, match="closed"):
        run.poll()
    worker.close()


def test_pixels_do_not_stay_behind(worker) -> None:
    worker.predict(Request(image_of(), device="cpu"))
    assert not list(worker._folder.rglob("*.npy"))


PARENT = """
import os, sys, time
import numpy as np
from MediScanLib.prediction.engine import Worker
from MediScanLib.prediction.exchange import Request
from MediScanLib.study.image import MedicalImage
worker = Worker()
run = worker.submit(Request(MedicalImage(np.zeros((300, 8, 8), np.float32)), device="cpu"))
print(worker.process_id, worker._folder, flush=True)
time.sleep(600)
"""


def test_no_child_outlives_its_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child, folder = parent.stdout.readline().split(maxsplit=1)
    parent.kill()
    parent.wait()
    end = time.monotonic() + PATIENCE
    while (alive(int(child)) or Path(folder.strip()).exists()) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(int(child))
    assert not Path(folder.strip()).exists()


def test_the_child_prints_nothing_but_events(worker) -> None:
    worker.predict(Request(image_of(), device="cpu"))
    lines = (worker._folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[0]) == {"ready": True}
    assert all("run" in json.loads(line) for line in lines[1:])
