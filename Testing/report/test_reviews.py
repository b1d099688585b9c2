"""What readers said, in a file that several processes use, that may be damaged, locked, full or not ours."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from MediScanLib.errors import UsageError, WriteError
from MediScanLib.prediction.result import Prediction
from MediScanLib.report.reviews import Box, Review, ReviewError, ReviewStore, reviews_file
from MediScanLib.study.image import MedicalImage
from toys import LABELS, make_predictor

NOON = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
ROOT = Path(__file__).resolve().parents[2]


def predicted(**facts) -> Prediction:
    pixels = np.random.default_rng(0).random((3, 20, 30))
    return make_predictor()(MedicalImage(pixels=pixels, **{"source": 'ü, "a".nii', **facts}))


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    return predicted(spacing=(0.5, 0.5, 2.0), identifiers={"study": "ab" * 16, "patient": "cd" * 16}, modality="CT")


@pytest.fixture
def store(tmp_path) -> ReviewStore:
    return ReviewStore(tmp_path / "new" / "reviews.sqlite", timeout_s=0.3)


@pytest.fixture
def review(prediction) -> Review:
    return Review.of(prediction, agree=True, reviewed_at=NOON)


# The record


def test_a_review_holds_what_was_judged(prediction):
    review = Review.of(
        prediction,
        agree=False,
        corrected_label="tuberculosis",
        corrected_severity=0.25,
        note="=cavity, left\n",
        reader="A. B.",
        region=[Box(first=(0, 1, 2), last=(1, 5, 9), name="cavity")],
    )
    assert review.finding == prediction.top.label
    assert abs(review.reviewed_at - datetime.now(timezone.utc)) < timedelta(minutes=1)
    assert review.reviewed_at.utcoffset() == timedelta(0)
    assert (review.input, review.identifiers) == (prediction.input, prediction.image.identifiers)
    assert review.model_sha256 == prediction.provenance.model_sha256
    assert Prediction.model_validate(review.prediction).to_dict() == prediction.to_dict()
    assert Review.from_json(review.to_json()) == review
    with pytest.raises(ValidationError):
        review.note = "changed"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"agree": True, "finding": "gout"}, "says nothing about 'gout'"),
        ({"agree": True, "finding": "normal", "corrected_label": "covid"}, "does not correct it to covid"),
        ({"agree": False, "finding": "normal", "corrected_label": "normal"}, "to the same"),
        ({"agree": False, "corrected_label": ""}, "corrected_label"),
        ({"agree": True, "corrected_severity": 1.01}, "corrected_severity"),
        ({"agree": True, "corrected_severity": float("nan")}, "corrected_severity"),
        ({"agree": True, "note": "x" * 10_001}, "note"),
        ({"agree": True, "reviewed_at": datetime(2026, 3, 1)}, "reviewed_at"),
        ({"agree": True, "region": [Box(first=(0, 0, 0), last=(0, 0, 0))] * 201}, "region"),
    ],
)
def test_what_contradicts_itself_or_is_too_much_is_refused(prediction, values, says):
    with pytest.raises(UsageError, match=says):
        Review.of(prediction, **values)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema_version": "9"}', b"\xff"])
def test_text_that_is_no_review(text):
    with pytest.raises(ReviewError, match="is no review"):
        Review.from_json(text)


def test_a_review_of_a_prediction_with_fields_of_the_future_can_be_read(review):
    content = json.loads(review.to_json())
    content["prediction"]["new_in_2030"] = [1, {"a": None}]
    assert Review.from_json(json.dumps(content)).prediction["new_in_2030"] == [1, {"a": None}]


texts = st.text(max_size=60)
boxes = st.builds(
    lambda first, size, name: Box(first=first, last=tuple(a + b for a, b in zip(first, size, strict=True)), name=name),
    st.tuples(*[st.integers(0, 10**6)] * 3),
    st.tuples(*[st.integers(0, 10**3)] * 3),
    texts,
)
zones = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
times = st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=zones)


@st.composite
def reviews(draw, prediction):
    finding = draw(st.sampled_from(LABELS))
    agree = draw(st.booleans())
    return Review.of(
        prediction,
        agree=agree,
        finding=finding,
        corrected_label=None if agree else draw(st.none() | texts.filter(lambda text: text not in ("", finding))),
        corrected_severity=draw(st.none() | st.floats(0, 1)),
        note=draw(texts),
        reader=draw(texts),
        region=draw(st.lists(boxes, max_size=3)),
        reviewed_at=draw(times),
    )


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_a_reader_says_comes_back(prediction, tmp_path, data):
    said = data.draw(st.lists(reviews(prediction), min_size=1, max_size=5))
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    store = ReviewStore(folder / "r.sqlite")
    numbers = [store.add(review) for review in said]
    assert numbers == sorted(set(numbers))
    assert store.all() == said
    assert all(review.reviewed_at.utcoffset() == timedelta(0) for review in store.all())
    since = data.draw(times)
    assert store.of(since=since) == [review for review in said if review.reviewed_at >= since]
    assert store.export(folder / "r.jsonl") == store.export(folder / "r.csv") == len(said)
    lines = (folder / "r.jsonl").read_text(encoding="utf-8").split("\n")
    assert [Review.from_json(line) for line in lines[:-1]] == said
    with (folder / "r.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    for row, review in zip(rows, said, strict=True):
        assert (row["note"], row["reader"], row["input"]) == (review.note, review.reader, review.input)
        assert row["agree"] == str(review.agree)
        assert row["corrected_label"] == (review.corrected_label or "")
        assert row["study"] == "ab" * 16
        assert float(row["probability"]) == prediction.probabilities[review.finding]


# Regions

angles = st.floats(-3, 3)


@settings(max_examples=200, deadline=None)
@given(
    angles=st.tuples(angles, angles, angles),
    spacing=st.tuples(*[st.floats(0.2, 6)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    first=st.tuples(st.integers(0, 9), st.integers(0, 19), st.integers(0, 29)),
    size=st.tuples(st.integers(0, 9), st.integers(0, 19), st.integers(0, 29)),
)
def test_a_box_drawn_around_voxels_in_space_is_these_voxels(angles, spacing, origin, first, size):
    image = MedicalImage(np.zeros((10, 20, 30)), spacing=spacing, origin=origin, direction=rotation(*angles))
    last = tuple(min(a + b, n - 1) for a, b, n in zip(first, size, image.shape, strict=True))
    low = tuple(value - 0.4 for value in first)
    high = tuple(value + 0.4 for value in last)
    corners = [
        image.to_physical((s, r, c)) for s in (low[0], high[0]) for r in (low[1], high[1]) for c in (low[2], high[2])
    ]
    box = Box.around(corners, summary(image))
    assert (box.first, box.last) == (first, last)
    assert box.first_mm == pytest.approx(image.to_physical(first), abs=1e-6)
    assert box.last_mm == pytest.approx(image.to_physical(last), abs=1e-6)


def rotation(a: float, b: float, c: float) -> tuple[float, ...]:
    def turn(angle: float, i: int, j: int) -> np.ndarray:
        matrix = np.eye(3)
        matrix[i, i] = matrix[j, j] = np.cos(angle)
        matrix[i, j], matrix[j, i] = -np.sin(angle), np.sin(angle)
        return matrix

    return tuple((turn(a, 0, 1) @ turn(b, 1, 2) @ turn(c, 0, 2)).ravel())


def summary(image: MedicalImage):
    """The image as a prediction tells it."""
    prediction = make_predictor()(MedicalImage(np.random.default_rng(0).random((1, 8, 8)), source="x"))
    facts = {name: getattr(image, name) for name in ("shape", "spacing", "origin", "direction")}
    return prediction.image.model_copy(update=facts)


def test_boxes_at_the_edge_thin_ones_and_those_outside():
    image = summary(MedicalImage(np.zeros((1, 20, 30))))
    assert Box.around([(-50, -50, -50), (50, 50, 50)], image) == Box(first=(0, 0, 0), last=(0, 19, 29))
    assert Box.around([(3.2, 4.2, 0.3)], image) == Box(first=(0, 4, 3), last=(0, 4, 3))
    with pytest.raises(UsageError, match="outside the image"):
        Box.around([(31, 2, 0), (40, 5, 0)], image)
    for nothing in ([], [(1, 2)], [(1, 2, float("nan"))]):
        with pytest.raises(UsageError, match="needs points"):
            Box.around(nothing, image)
    with pytest.raises(ValidationError, match="holds no voxel"):
        Box(first=(0, 5, 0), last=(0, 4, 0))


# The store


def test_nothing_is_made_before_the_first_review(store, tmp_path, review):
    assert store.all() == store.latest() == []
    assert store.export(tmp_path / "none.csv") == 0
    assert not store.path.parent.exists()
    assert store.add(review) == 1
    assert [path.name for path in store.path.parent.iterdir()] == ["reviews.sqlite"]
    assert os.name != "posix" or store.path.stat().st_mode & 0o777 == 0o600


def test_where_reviews_lie(monkeypatch, tmp_path):
    monkeypatch.delenv("MEDISCAN_REVIEWS", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setattr("sys.platform", "linux")
    assert reviews_file() == tmp_path / "MediScan" / "reviews.sqlite"
    monkeypatch.setenv("MEDISCAN_REVIEWS", str(tmp_path / "mine.db"))
    assert ReviewStore().path == tmp_path / "mine.db"


def test_later_reviews_stand_beside_earlier_ones(store, prediction):
    def said(hours: int, prediction=prediction, **more) -> Review:
        review = Review.of(prediction, agree=True, reviewed_at=NOON + timedelta(hours=hours), **more)
        store.add(review)
        return review

    changed = prediction.provenance.model_copy(update={"model": "other", "model_sha256": "f" * 64})
    first = said(0)
    second = said(2, note="on second thought")
    said(1, note="entered late")
    other_reader = said(3, reader="B")
    other_model = said(4, prediction.model_copy(update={"provenance": changed}))
    no_identifiers = said(5, predicted())
    assert store.all()[0] == first
    assert len(store.all()) == 6
    assert store.latest() == [second, other_reader, other_model, no_identifiers]
    assert store.of(model="other") == store.latest(model="other") == [other_model]
    assert store.of(since=NOON + timedelta(hours=4)) == [other_model, no_identifiers]
    with pytest.raises(UsageError, match="time zone"):
        store.of(since=datetime(2026, 3, 1))


WRITER = """
import sys
from pathlib import Path
from MediScanLib.report.reviews import Review, ReviewStore
store, review = ReviewStore(Path(sys.argv[1])), Review.from_json(Path(sys.argv[2]).read_text())
for number in range(40):
    store.add(review.model_copy(update={"note": f"{sys.argv[3]} {number}"}))
"""


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def test_processes_that_write_at_once_lose_nothing(store, review, tmp_path):
    (tmp_path / "review.json").write_text(review.to_json())
    writers = [python(WRITER, store.path, tmp_path / "review.json", name) for name in "abc"]
    assert [writer.communicate(timeout=100)[1] for writer in writers] == ["", "", ""]
    notes = [review.note for review in ReviewStore(store.path).all()]
    assert sorted(notes) == sorted(f"{name} {number}" for name in "abc" for number in range(40))
    for name in "abc":
        assert [note for note in notes if note.startswith(name)] == [f"{name} {number}" for number in range(40)]


def test_a_writer_that_is_killed_leaves_whole_reviews(store, review, tmp_path):
    (tmp_path / "review.json").write_text(review.to_json())
    writer = python(WRITER.replace("range(40)", "range(10**6)"), store.path, tmp_path / "review.json", "a")
    while len(store.all()) < 5:
        assert writer.poll() is None
    writer.kill()
    writer.communicate()
    notes = [review.note for review in store.all()]
    assert notes == [f"a {number}" for number in range(len(notes))]
    store.add(review)
    assert store.all()[-1] == review


def test_a_locked_file_says_so_and_is_waited_for(store, review):
    store.add(review)
    with sqlite3.connect(store.path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert len(store.all()) == 1, "readers do not wait for a writer"
        with pytest.raises(ReviewError, match=r"reviews.sqlite: cannot be written.*Another program") as caught:
            store.add(review)
        assert caught.value.code == "locked"
        other.execute("ROLLBACK")
    assert store.add(review) == 2


@pytest.mark.parametrize("how", ["garbage", "cut", "header", "pages", "table", "row", "json"])
def test_a_damaged_file_is_told_and_kept(store, review, how):
    for _ in range(30):
        store.add(review)
    data = bytearray(store.path.read_bytes())
    if how == "garbage":
        data[:] = os.urandom(len(data))
    elif how == "cut":
        del data[len(data) // 2 :]
    elif how == "header":
        data[:16] = b"\0" * 16
    elif how == "pages":
        data[4096:] = os.urandom(len(data) - 4096)
    else:
        with sqlite3.connect(store.path) as other:
            other.execute(
                {
                    "table": "DROP TABLE reviews",
                    "row": "UPDATE reviews SET review = '{}' WHERE id = 3",
                    "json": "UPDATE reviews SET review = substr(review, 1, 50) WHERE id = 3",
                }[how]
            )
        data = None
    if data is not None:
        store.path.write_bytes(data)
    before = store.path.read_bytes()
    with pytest.raises(ReviewError, match=r"reviews.sqlite: .*left as it is") as caught:
        store.all()
    assert caught.value.code == "damaged"
    if how in ("garbage", "header", "table"):
        with pytest.raises(ReviewError, match="cannot be written"):
            store.add(review)
    assert store.path.read_bytes() == before


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_damage_ends_in_anything_but_a_review_error(review, tmp_path, data):
    path = tmp_path / "some.sqlite"
    if not path.exists():
        for _ in range(4):
            ReviewStore(path).add(review)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + 4] = data.draw(st.binary(min_size=1, max_size=4))
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(1, len(content)))]
    broken = Path(tempfile.mkdtemp(dir=tmp_path)) / "broken.sqlite"
    broken.write_bytes(bytes(content))
    store = ReviewStore(broken, timeout_s=0)
    for use in (store.all, lambda: store.add(review), store.latest, lambda: store.export(tmp_path / "x.csv")):
        try:
            use()
        except ReviewError as error:
            assert "broken.sqlite" in str(error)
    shutil.rmtree(broken.parent)


def test_a_file_of_another_program_or_of_a_newer_version_is_left_alone(tmp_path, store, review):
    other = ReviewStore(tmp_path / "places.sqlite")
    with sqlite3.connect(other.path) as connection:
        connection.execute("CREATE TABLE moz_places (url)")
    store.add(review)
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 2")
    for place, code, says in ((other, "foreign", "another program"), (store, "newer", "newer MediScan")):
        before = place.path.read_bytes()
        for use in (place.all, lambda place=place: place.add(review)):
            with pytest.raises(ReviewError, match=says) as caught:
                use()
            assert caught.value.code == code
        assert place.path.read_bytes() == before


FULL = """
import resource, signal, sys
from pathlib import Path
from MediScanLib.report.reviews import Review, ReviewError, ReviewStore
store, review = ReviewStore(Path(sys.argv[1])), Review.from_json(Path(sys.argv[2]).read_text())
store.add(review)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
try:
    for _ in range(100):
        store.add(review)
except ReviewError as error:
    assert error.code == "full", error
    sys.exit(str(error))
"""


@pytest.mark.skipif(os.name != "posix", reason="limits of POSIX")
def test_a_full_disk_keeps_what_was_kept(store, review, tmp_path):
    (tmp_path / "review.json").write_text(review.to_json())
    writer = python(FULL, store.path, tmp_path / "review.json")
    said = writer.communicate(timeout=100)[1]
    assert "reviews.sqlite: cannot be written" in said
    assert "Traceback" not in said
    kept = store.all()
    assert kept and set(map(Review.to_json, kept)) == {review.to_json()}
    store.add(review)
    assert len(store.all()) == len(kept) + 1


READ_ONLY = """
import os, sys
from pathlib import Path
from MediScanLib.report.reviews import Review, ReviewError, ReviewStore
if os.geteuid() == 0:  # who may do everything, also in a folder that cannot be written
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
store = ReviewStore(Path(sys.argv[1]))
assert len(store.all()) == 1, store.all()
try:
    store.add(store.all()[0])
except ReviewError as error:
    sys.exit(f"{error.code}: {error}")
"""


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_folder_that_cannot_be_written_can_be_read(review):
    folder = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    try:
        store = ReviewStore(folder / "reviews.sqlite")
        store.add(review)
        store.path.chmod(0o444)
        folder.chmod(0o555)
        said = python(READ_ONLY, store.path).communicate(timeout=100)[1]
        assert said.startswith("read_only: "), said
        assert "reviews.sqlite: cannot be written" in said
        assert sorted(path.name for path in folder.iterdir()) == ["reviews.sqlite"]
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_path_that_is_a_folder_or_under_a_file(tmp_path, review):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "folder", tmp_path / "file" / "reviews.sqlite"):
        with pytest.raises(ReviewError, match=path.name):
            ReviewStore(path).add(review)
        with pytest.raises(ReviewError, match=path.name):
            ReviewStore(path).all()
    assert (tmp_path / "file").read_text() == "x"


def test_export_is_whole_or_not_at_all(store, review, tmp_path, monkeypatch):
    store.add(review)
    with pytest.raises(UsageError, match=r"\.csv or \.jsonl"):
        store.export(tmp_path / "r.xlsx")
    same = ReviewStore(tmp_path / "same.csv")
    same.add(review)
    with pytest.raises(UsageError, match="the file of the reviews itself"):
        same.export(tmp_path / "same.csv")
    (tmp_path / "old.csv").write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(WriteError, match=r"old.csv: cannot be written \(No space left.*untouched"):
        store.export(tmp_path / "old.csv")
    assert (tmp_path / "old.csv").read_text() == "old"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
