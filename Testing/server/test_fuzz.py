"""Whatever comes in: no status of 500, no hang, no growth."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress

import httpx
import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serving import RunningServer, dicom_slices, png

from MediScanLib.prediction.exchange import Request
from MediScanLib.prediction.packing import MEDIA_TYPE, pack
from MediScanLib.study.image import MedicalImage

LONGEST_S = 30.0


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory, models):
    folder = tmp_path_factory.mktemp("fuzzed") / "data"
    with RunningServer(
        folder,
        models,
        requests_per_minute=0,
        max_body_bytes=4 * 1024**2,
        max_voxels=600_000,
        max_files=10,
        reading_memory_bytes=1024**3,
        reading_time_s=20,
        keep_s=5.0,
    ) as running:
        yield running


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
"""Of schemathesis: what comes back is what the description says."""


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode), ids=lambda mode: mode.value)
def test_what_the_description_allows_and_what_not(fuzzed, mode) -> None:
    schema = schemathesis.openapi.from_url(f"{fuzzed.url}/v1/openapi.json")
    tried = []
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(max_examples=12, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case) -> None:
            response = case.call(timeout=LONGEST_S)
            case.validate_response(response, checks=CHECKS)

        with suppress(Unsatisfiable):  # an endpoint without any parameter cannot be asked wrongly
            ask()
            tried.append(operation.label)
    assert len(tried) >= 10


def mangled(chance: random.Random, content: bytes, other: bytes) -> bytes:
    """Cut, with flipped bits, or spliced with another file."""
    how = chance.choice(("cut", "flip", "splice", "head", "repeat"))
    block = bytearray(content)
    if how == "cut":
        return bytes(block[: chance.randrange(len(block))])
    if how in ("flip", "head"):
        end = len(block) if how == "flip" else min(len(block), 1500)
        for _ in range(chance.randrange(1, 40)):
            block[chance.randrange(end)] ^= 1 << chance.randrange(8)
        return bytes(block)
    start = chance.randrange(len(block))
    if how == "splice":
        return bytes(block[:start]) + other[chance.randrange(len(other)) :]
    return bytes(block[:start]) + bytes(block[max(0, start - 300) :])


def check(response: httpx.Response) -> int:
    assert response.status_code < 500 or response.status_code == 504, response.text
    if response.status_code != 200:
        problem = response.json()
        assert problem["status"] == response.status_code
        assert problem["detail"]
        assert "Traceback" not in problem["detail"]
    return response.status_code


def test_damaged_dicom_files(fuzzed, shared_data) -> None:
    chance = random.Random(7)
    paths = [path for path in sorted((shared_data / "dicom" / "files").iterdir()) if path.stat().st_size < 600_000]
    files = [path.read_bytes() for path in paths if path.suffix == ".dcm"]
    assert len(files) > 50
    statuses = []
    with fuzzed.client() as client:
        for number in range(150):
            content = mangled(chance, files[number % len(files)], chance.choice(files))
            sent = {"files": ("x.dcm", content)}
            statuses.append(check(client.post("/v1/predict", files=sent, timeout=LONGEST_S)))
        assert client.get("/v1/health").status_code == 200
        assert check(client.post("/v1/predict", files={"files": ("a.png", png())})) == 200
    print(Counter(statuses))
    assert len(set(statuses)) >= 3, "some are read, others refused for different reasons"


def test_damaged_series(fuzzed) -> None:
    chance = random.Random(8)
    slices = dicom_slices(6)
    with fuzzed.client() as client:
        for _ in range(25):
            parts = [
                mangled(chance, part, chance.choice(slices)) if chance.random() < 0.3 else part for part in slices
            ]
            chance.shuffle(parts)
            sent = [("files", (f"{number}", part)) for number, part in enumerate(parts)]
            check(client.post("/v1/predict", files=sent, data={"slice": "1"}, timeout=LONGEST_S))


def test_damaged_packed_studies(fuzzed) -> None:
    chance = random.Random(9)
    import numpy as np

    pixels = np.random.default_rng(0).random((2, 20, 20), dtype=np.float32)
    head, body = pack(Request(MedicalImage(pixels), model="toy-random"))
    block = head + bytes(body)
    headers = {"Content-Type": MEDIA_TYPE, "Accept": "application/x-ndjson"}
    with fuzzed.client() as client:
        for _ in range(200):
            content = mangled(chance, block, block)
            check(client.post("/v1/predict", content=content, headers=headers, timeout=LONGEST_S))


def memory_of(process: int) -> float:
    """MiB of a process and its children."""
    parent = psutil.Process(process)
    return sum(one.memory_info().rss for one in (parent, *parent.children(recursive=True))) / 1024**2


def test_memory_does_not_grow_over_two_thousand_requests(fuzzed) -> None:
    """Good and bad ones in turn; what the first hundreds take, such as caches, is not counted."""
    assert fuzzed.process is not None
    good, cut = png(1, (50, 60)), png(2)[:500]
    pixels_of = MedicalImage
    measured: list[float] = []
    with fuzzed.client() as client:
        import numpy as np

        head, body = pack(Request(pixels_of(np.ones((1, 30, 30), np.float32)), model="toy-random"))
        for number in range(2000):
            kind = number % 4
            if kind == 0:
                sent = client.post("/v1/predict", files={"files": ("a.png", good)}, data={"keep": "false"})
            elif kind == 1:
                sent = client.post("/v1/predict", files={"files": ("a.png", cut)})
            elif kind == 2:
                sent = client.post("/v1/predict", content=head + bytes(body), headers={"Content-Type": MEDIA_TYPE})
            else:
                sent = client.get("/v1/info")
            check(sent)
            if number % 200 == 199:
                measured.append(memory_of(fuzzed.process.pid))
    print("MiB:", [round(value) for value in measured])
    assert measured[-1] - measured[3] < 25, measured
