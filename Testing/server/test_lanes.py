"""Lanes: threads that come and go, images that are predicted abreast, and what must not depend on that."""

from __future__ import annotations

import platform
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch

from MediScanLib.config import InferenceConfig
from MediScanLib.prediction.exchange import Request
from MediScanLib.server.compute import Compute, Models
from MediScanLib.server.lane import Lane, Work
from MediScanLib.server.metrics import Metrics
from MediScanLib.server.problems import StoppingError
from MediScanLib.study.image import MedicalImage
from MediScanLib.study.record import ClinicalRecord

PATIENCE = 60.0
RECORD = ClinicalRecord(age_years=63, sex="M")


@pytest.fixture(scope="module")
def loaded(models):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEDISCAN_MODELS", str(models))
        yield Models(("toy-random",), "cpu", InferenceConfig(max_batch_size=4))


@pytest.fixture
def two_processors():
    """Torch with two threads, whatever the tests run with."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def asked(seed: int, *, slices: int = 1) -> Request:
    pixels = np.random.default_rng(seed).integers(0, 255, (slices, 60, 80)).astype(np.float32)
    return Request(MedicalImage(pixels, source=str(seed)), RECORD, model="toy-random")


def probabilities(prediction) -> list[float]:
    return [finding.probability for finding in prediction.findings]


def until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def names_of_threads(lane: str) -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == f"mediscan-{lane}"]


class Gate:
    """Where predictions wait until the test lets them go on; a real predictor goes on then."""

    def __init__(self, models: Models) -> None:
        self._models, self.inference, self.device = models, models.inference, models.device
        self.entered: list[int] = []
        self._open = threading.Event()

    def predictor(self, name: str, settings: InferenceConfig):
        inner, gate = self._models.predictor(name, settings), self

        class Waiting:
            device = inner.device

            def __call__(self, *arguments, **named):
                gate.entered.append(1)
                gate._open.wait(PATIENCE)
                return inner(*arguments, **named)

            def predict_batch(self, studies):
                gate.entered.append(len(studies))
                gate._open.wait(PATIENCE)
                return inner.predict_batch(studies)

        return Waiting()

    def open(self) -> None:
        self._open.set()


def test_a_lane_without_work_has_no_thread_and_remembers_the_last_image(loaded) -> None:
    lane = Lane("resting", loaded, 0.0, Metrics(), rest_s=0.2)
    assert lane.resting and lane.alive and not names_of_threads("resting")
    first = lane.put(Work(asked(1), alone=True)).future.result(PATIENCE)
    predictor = next(iter(lane._seats[0].predictors.values()))
    until(lambda: lane.resting and not names_of_threads("resting"))
    assert lane.alive and not lane.busy
    again = lane.put(Work(asked(1), alone=True)).future.result(PATIENCE)
    assert probabilities(again) == probabilities(first)
    assert list(lane._seats[0].predictors.values()) == [predictor]  # with what its encoder made of the image
    lane.close(PATIENCE)
    assert not names_of_threads("resting")


def test_images_abreast_are_shared_among_the_threads(loaded) -> None:
    gate = Gate(loaded)
    lane = Lane("abreast", gate, 0.0, Metrics(), abreast=2, processors=1)
    works = [lane.put(Work(asked(1))), lane.put(Work(asked(2)))]
    until(lambda: len(gate.entered) == 2)  # both at once, though one pass could take both
    assert gate.entered == [1, 1] and lane.busy
    works += [lane.put(Work(asked(seed))) for seed in range(3, 12)]
    assert lane.waiting == 9 and len(names_of_threads("abreast")) == 2
    gate.open()
    results = [work.future.result(PATIENCE) for work in works]
    assert max(gate.entered) <= loaded.inference.max_batch_size and sum(gate.entered) == 11
    assert [result.input for result in results] == [str(seed) for seed in range(1, 12)]
    lane.close(PATIENCE)


def test_a_crowd_is_predicted_as_each_alone(loaded, two_processors) -> None:
    compute = Compute(loaded, 0.004, Metrics())
    assert compute.crowd is not None
    expected = [loaded.predictor("toy-random", InferenceConfig())(asked(seed).image, RECORD) for seed in range(24)]
    works = [compute.put(Work(asked(seed))) for seed in range(24)]
    for work, alone in zip(works, expected, strict=True):
        found = work.future.result(PATIENCE)
        assert found.input == alone.input
        assert probabilities(found) == pytest.approx(probabilities(alone), abs=1e-5)
        assert found.maps.values == pytest.approx(alone.maps.values, abs=1e-4)
    assert names_of_threads("crowd")  # it was one
    compute.close(PATIENCE)


def test_what_comes_alone_is_the_same_to_the_last_bit_in_a_crowd(loaded, two_processors) -> None:
    compute = Compute(loaded, 0.004, Metrics())
    predictor = loaded.predictor("toy-random", InferenceConfig())
    for seed in range(6):
        crowd = [compute.put(Work(asked(100 + seed * 10 + number))) for number in range(6)]
        found = compute.put(Work(asked(seed), alone=True)).future.result(PATIENCE)
        alone = predictor(asked(seed).image, RECORD)
        assert probabilities(found) == probabilities(alone)
        assert (found.maps.values == alone.maps.values).all()
        for work in crowd:
            work.future.result(PATIENCE)
    compute.close(PATIENCE)


def test_one_image_takes_all_processors_and_volumes_go_their_own_way(loaded, two_processors) -> None:
    gate = Gate(loaded)
    gate.bundle = loaded.bundle
    compute = Compute(gate, 0.0, Metrics())
    compute.put(Work(asked(1, slices=3)))
    until(lambda: compute.volumes.busy)
    compute.put(Work(asked(2)))  # beside a volume: one processor
    compute.put(Work(asked(3), alone=True))
    until(lambda: len(gate.entered) == 3)
    assert [compute.volumes.busy, compute.crowd.busy, compute.images.busy] == [True, True, True]
    gate.open()
    until(lambda: not any(lane.busy for lane in compute.lanes))
    compute.put(Work(asked(4))).future.result(PATIENCE)
    assert compute.alive
    compute.close(PATIENCE)


def test_with_one_processor_there_is_no_crowd(loaded) -> None:
    compute = Compute(loaded, 0.0, Metrics(), processors=1)
    assert compute.crowd is None
    works = [compute.put(Work(asked(seed))) for seed in range(6)]
    assert all(work.future.result(PATIENCE).findings for work in works)
    compute.close(PATIENCE)


def test_a_largest_batch_of_one_keeps_every_image_from_depending_on_others(
    models, monkeypatch, two_processors
) -> None:
    monkeypatch.setenv("MEDISCAN_MODELS", str(models))
    single = Models(("toy-random",), "cpu", InferenceConfig(max_batch_size=1))
    predictor = single.predictor("toy-random", InferenceConfig())
    compute = Compute(single, 0.004, Metrics())
    works = [compute.put(Work(asked(seed))) for seed in range(12)]
    for seed, work in enumerate(works):
        found, alone = work.future.result(PATIENCE), predictor(asked(seed).image, RECORD)
        assert probabilities(found) == probabilities(alone)
        assert (found.maps.values == alone.maps.values).all()
    compute.close(PATIENCE)


def test_closing_ends_what_waits_and_finishes_what_is_under_way(loaded) -> None:
    gate = Gate(loaded)
    lane = Lane("closing", gate, 0.0, Metrics(), abreast=2, processors=1)
    under_way = [lane.put(Work(asked(seed), alone=True)) for seed in range(2)]
    until(lambda: len(gate.entered) == 2)
    waiting = [lane.put(Work(asked(seed), alone=True)) for seed in range(2, 5)]
    closing = threading.Thread(target=lane.close, args=(PATIENCE,))
    closing.start()
    for work in waiting:
        with pytest.raises(StoppingError):
            work.future.result(PATIENCE)
    with pytest.raises(StoppingError):
        lane.put(Work(asked(9)))
    gate.open()
    closing.join(PATIENCE)
    assert all(work.future.result(0).findings for work in under_way)
    assert lane.resting and not names_of_threads("closing")


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="this C library has no such setting")
def test_blocks_of_a_batch_stay_with_the_process(kept) -> None:
    """Twenty blocks of 80 MB one after another, in a thread as in a lane: fetched anew, they are 20 000 pages each."""
    program = f"""
import resource, threading
import numpy as np
from MediScanLib.server.memory import keep_freed_memory
assert not {kept} or keep_freed_memory()
def work():
    for number in range(20):
        np.empty(80_000_000, np.uint8)[::4096] = 1
        if number == 2:
            global before
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=work)
thread.start()
thread.join()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True, text=True, timeout=120)
    faults = int(done.stdout)
    # with huge pages a block takes fewer faults than it has pages
    assert faults < 17 * 20 if kept else faults > 17 * 20
