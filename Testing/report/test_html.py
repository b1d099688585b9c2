"""The page for people: whole, escaped, without anything from outside, and with the grave things first."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from MediScanLib import ClinicalRecord
from MediScanLib.errors import UsageError, WriteError
from MediScanLib.notice import RESEARCH_USE_NOTICE
from MediScanLib.prediction.result import Prediction
from MediScanLib.report import html
from MediScanLib.report.html import HtmlPage, write_html
from MediScanLib.report.slice_curve import BOTTOM, LABEL_HEIGHT, TOP, slice_curve
from MediScanLib.study.image import MedicalImage
from toys import LABELS, make_predictor

INLINE = {"strong", "bdi", "a", "code"}
VOID = {"meta", "img", "br", "rect", "line", "polyline"}
HOSTILE = (
    "</style><script>alert(1)</script>",
    '"><img src=http://evil/x onerror=alert(1)>',
    "{{ 7 * 7 }}",
    "&amp;\0\x1b",
)


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    """Of a radiograph, with two clinical values, one of them from the header."""
    image = MedicalImage(
        np.random.default_rng(0).random((1, 40, 30)),
        spacing=(0.2, 0.2, 1.0),
        source="in/chest.dcm",
        modality="CR",
        body_part="CHEST",
        prefill={"age_years": 63.0},
        identifiers={"study": "ab" * 16},
        warnings=("The header gives two spacings.",),
    )
    return make_predictor()(image, ClinicalRecord(crp_mg_per_l=88, heart_rate_per_min=80))


@pytest.fixture(scope="module")
def volume() -> Prediction:
    pixels = np.random.default_rng(0).random((12, 20, 20)) * np.linspace(0.2, 1, 12)[:, None, None]
    return make_predictor()(MedicalImage(pixels, spacing=(1, 1, 2), source="ct", modality="CT", body_part="CHEST"))


def changed(prediction: Prediction, **parts: dict) -> Prediction:
    """The prediction with other values in some of its parts."""
    content = prediction.to_dict()
    for part, values in parts.items():
        content[part] = {**content[part], **values} if isinstance(values, dict) else values
    return Prediction.model_validate(content)


class Page(HTMLParser):
    """Every tag and what is read; complains of tags that do not match."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.raw = path.read_text(encoding="utf-8")
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text, self._open = "", []
        self.feed(self.raw)
        self.close()
        assert not self._open, self._open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag not in INLINE:
            self.text += " "

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag
        if tag not in INLINE:
            self.text += " "

    def handle_data(self, data):
        if "style" not in self._open:
            self.text += data if data.strip() else " "

    @property
    def words(self) -> str:
        return " ".join(self.text.split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def written(prediction: Prediction, folder: Path, **options) -> Page:
    write_html(prediction, folder / "r.html", **options)
    page = Page(folder / "r.html")
    check_closed(page)
    assert sorted(path.name for path in folder.iterdir()) == ["r.html"]
    return page


def check_closed(page: Page) -> None:
    """Nothing that runs, and nothing from elsewhere."""
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "form", "base", "input", "style "}
    for tag, attrs in page.tags:
        assert not any(name.startswith("on") for name in attrs), (tag, attrs)
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert (attrs.get(name) or "#").startswith(("#", "data:image/jpeg;base64,")), (tag, attrs)
    (policy,) = [meta["content"] for meta in page.all("meta") if "http-equiv" in meta]
    assert policy.startswith("default-src 'none'")
    assert page.words.startswith("MediScan: ")
    assert page.words.count(RESEARCH_USE_NOTICE) >= 2
    assert page.words.endswith(RESEARCH_USE_NOTICE)
    assert "url(" not in page.raw and "@import" not in page.raw


def picture(size: tuple[int, int] = (64, 48), kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(stream, kind)
    return stream.getvalue()


# What is on it


def test_what_was_said_is_there(prediction, tmp_path):
    page = written(prediction, tmp_path)
    number = r"[<>]? ?[01]\.\d\d"
    for finding in prediction.findings:
        assert re.search(rf"{finding.label} {number} {number} to {number} {finding.decision} 0\.50", page.words), (
            finding
        )
    assert "The probabilities are calibrated on held-out data." in page.words
    assert "Age 63 years from the image header, not entered" in page.words
    assert "C-reactive protein 88 mg/L" in page.words
    assert "C-reactive protein 88 mg/L from" not in page.words
    assert "Unknown: Sex, Temperature, " in page.words
    assert "never learned from such a value: Heart rate." in page.words
    assert "The header gives two spacings." in page.words
    assert "ab" * 16 in page.words
    for fact in (prediction.provenance.model_sha256, "toy 1", prediction.provenance.runtime):
        assert fact in page.words
    x, y, z = next(m.position for m in prediction.heat_maps if m.label == "pneumonia")
    assert f"{x:.1f}, {y:.1f}, {z:.1f}" in page.words


def test_reasons_to_defer_stand_above_everything(prediction, tmp_path):
    reasons = [{"code": "blank_image", "message": "The image is blank."}, {"code": "x", "message": "And odd."}]
    page = written(changed(prediction, certainty={"deferred": True, "reasons": reasons}), tmp_path)
    order = [
        page.words.index(text) for text in ("Left to a human", "The image is blank.", "And odd.", "chest.dcm in/")
    ]
    assert order == sorted(order)
    assert order[-1] < page.words.index("If it were to decide") < page.words.index("Findings")
    calm = written(changed(prediction, certainty={"deferred": False, "reasons": []}), tmp_path)
    assert "Left to a human" not in calm.words
    assert "If it were to decide" not in calm.words


def test_uncalibrated_is_said_in_words(prediction, tmp_path):
    findings = [{**finding, "calibrated": False} for finding in prediction.to_dict()["findings"]]
    page = written(changed(prediction, findings=findings), tmp_path)
    assert page.words.count("not calibrated") == len(LABELS) + 2
    findings[0]["calibrated"] = True
    assert "Some probabilities are not calibrated." in written(changed(prediction, findings=findings), tmp_path).words


@pytest.mark.parametrize(
    ("severity", "says"),
    [
        (
            {"applicable": True, "score": 0.4, "grade": "moderate", "scale": "Brixia 0-18", "value": 7.2},
            "moderate: 7.2 on Brixia 0-18 (0.40 of the maximum).",
        ),
        ({"applicable": True}, "No grade."),
        ({"applicable": False, "reason": "It was switched off."}, "Not applicable: It was switched off."),
        ({"applicable": False}, "Not applicable."),
    ],
)
def test_severity(prediction, tmp_path, severity, says):
    nothing = dict.fromkeys(("score", "grade", "scale", "value", "reason"))
    assert f"Severity {says}" in written(changed(prediction, severity={**nothing, **severity}), tmp_path).words


def test_what_the_clinical_values_did(prediction, tmp_path):
    parts = [
        {"finding": "pneumonia", "unknown": 0.0, "fields": {"crp_mg_per_l": float(np.log(2)), "age_years": -900.0}},
        {"finding": "covid", "unknown": 900.0, "fields": {"crp_mg_per_l": 900.0, "age_years": 0.0}},
    ]
    page = written(changed(prediction, clinical={"contributions": parts}), tmp_path)
    assert (
        "Probability with none of them 0.50 1.00 C-reactive protein × 2.00 > 100 Age < 0.01 × 1.00"
        in page.words.replace("> 0.99", "1.00")
    )
    assert (
        "What the clinical values did"
        not in written(changed(prediction, clinical={"contributions": []}), tmp_path).words
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.00"), (0.004, "< 0.01"), (0.005, "0.01"), (0.994, "0.99"), (0.996, "> 0.99"), (1, "1.00")],
)
def test_no_probability_is_rounded_to_a_certainty(value, text):
    assert html._probability(value) == text


def test_pictures_are_inside_and_bounded(prediction, tmp_path, monkeypatch):
    file = tmp_path.parent / f"{tmp_path.name}.tif"
    file.write_bytes(picture((3000, 2000), "TIFF"))
    page = written(prediction, tmp_path, pictures={"pneumonia": file, "covid": picture(kind="JPEG")})
    sources = [image["src"] for image in page.all("img")]
    sizes = [Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).size for source in sources]
    assert sizes == [(1200, 800), (64, 48)]
    assert [image["alt"].rpartition(" ")[2] for image in page.all("img")] == ["pneumonia", "covid"]
    monkeypatch.setattr(html, "PAGE_PICTURE_BYTES", 10_000)
    page = written(prediction, tmp_path, pictures={"pneumonia": file, "covid": picture(kind="JPEG")})
    assert len(page.all("img")) == 1
    assert "Pictures are left out here" in page.words


@pytest.mark.parametrize(
    ("pictures", "says"),
    [
        ({"gout": b""}, "'gout', which is no finding"),
        ({"covid": b""}, "picture of covid cannot be used"),
        ({"covid": b"<svg onload='alert(1)'/>"}, "picture of covid cannot be used"),
        ({"covid": picture()[:200]}, "picture of covid cannot be used"),
        ({"covid": Path("nowhere.png")}, "nowhere.png"),
    ],
)
def test_pictures_that_are_none(prediction, tmp_path, pictures, says):
    with pytest.raises(UsageError, match=says):
        write_html(prediction, tmp_path / "r.html", pictures)


def test_what_a_picture_file_says_of_itself_stays_outside(prediction, tmp_path):
    stream = io.BytesIO()
    exif = Image.Exif()
    exif[0x010E] = "Doe, Jane"
    Image.new("RGB", (20, 20)).save(stream, "JPEG", exif=exif)
    assert b"Doe" in stream.getvalue()
    page = written(prediction, tmp_path, pictures={"covid": stream.getvalue()})
    assert b"Doe" not in base64.b64decode(page.all("img")[0]["src"].partition(",")[2])


# Strings from outside


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_written_somewhere_stays_text(prediction, volume, tmp_path, data):
    """Every free text of the contract is exchanged; the page keeps its tags, and the text is read as it was meant."""
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30) | st.sampled_from(HOSTILE)
    given_ = data.draw(st.sampled_from([prediction, volume]))
    plain = written(given_, tmp_path)
    content = given_.to_dict()
    drawn: list[str] = []

    def other(value):
        if isinstance(value, str):
            drawn.append(data.draw(text))
            return drawn[-1]
        if isinstance(value, list):
            return [other(item) for item in value]
        return value

    label = data.draw(text)
    for finding in content["findings"]:
        finding["operating_point"] = other("x")
    for part, names in {
        "image": ("modality", "body_part", "view", "laterality", "reader", "warnings"),
        "provenance": ("model", "model_version", "model_sha256", "device", "runtime", "notes"),
        "severity": ("grade", "scale", "reason"),
    }.items():
        for name in names:
            content[part][name] = other(content[part][name])
    content["image"]["identifiers"] = {other("x"): other("y")}
    content["clinical"]["used"] = {other("x"): other("y"), "age_years": 5.0}
    content["clinical"]["missing"] = [other("x")]
    content["certainty"]["reasons"] = [{"code": "x", "message": other("x")}]
    content["certainty"]["deferred"] = True
    content["provenance"]["versions"] = {other("x"): other("y")}
    content["input"], content["volume_rule"], content["notice"] = other("x"), other("x"), other("x")
    content["findings"][0]["label"] = label
    for score in content["slices"]:
        score["probabilities"][label] = score["probabilities"].pop(LABELS[0])
    content["heat_maps"][0]["label"] = label
    page = written(Prediction.model_validate(content), tmp_path)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags} | {
        "h2",
        "ul",
        "li",
        "strong",
        "div",
        "small",
        "bdi",
    }
    for value in (content["input"], label, content["certainty"]["reasons"][0]["message"]):
        wanted = "".join("\ufffd" if html._UNPRINTABLE.match(letter) else letter for letter in value)
        assert " ".join(wanted.split()) in page.words


# Volumes


def test_slices_are_a_curve_with_words(volume, tmp_path):
    page = written(volume, tmp_path)
    curve = slice_curve(volume)
    assert len(page.all("polyline")) == len(LABELS)
    assert all(len(line["points"].split()) == 12 for line in page.all("polyline"))
    top = volume.top.label
    peak = max(volume.slices, key=lambda score: score.probabilities[top])
    assert f"{top} is highest in slice {peak.index}, {peak.probabilities[top]:.2f}." in page.words
    assert volume.volume_rule in page.words
    assert curve.lines[0].label == top
    assert len({(line.dashes, line.color) for line in curve.lines}) == len(LABELS), "told apart without colors too"


@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(st.lists(st.floats(0, 1), min_size=5, max_size=5), min_size=2, max_size=40, unique_by=tuple),
    start=st.integers(0, 500),
)
def test_curves_stay_within_their_frame_and_labels_apart(volume, scores, start):
    slices = [
        {"index": start + 3 * number, "probabilities": dict(zip(LABELS, values, strict=True))}
        for number, values in enumerate(scores)
    ]
    curve = slice_curve(changed(volume, slices=slices))
    for line in curve.lines:
        for point in line.points.split():
            x, y = map(float, point.split(","))
            assert 40 <= x <= 580
            assert TOP <= y <= BOTTOM
    heights = sorted(line.label_y for line in curve.lines)
    assert all(b - a >= LABEL_HEIGHT - 0.2 for a, b in pairwise(heights))
    assert heights[0] >= TOP
    assert heights[-1] <= BOTTOM + 5


@pytest.mark.parametrize("count", [0, 1])
def test_no_curve_of_less_than_two_slices(volume, count):
    assert slice_curve(changed(volume, slices=volume.to_dict()["slices"][:count])) is None


# Several


def test_several_get_a_table_of_contents(prediction, volume, tmp_path):
    path = tmp_path / "r.html"
    with HtmlPage(path) as page:
        page.add(changed(prediction, certainty={"deferred": False, "reasons": []}), {"covid": picture()})
        page.add_failure("<b>.dcm", "<b>.dcm: it ends <early>.")
        page.add(changed(volume, certainty={"deferred": True, "reasons": [{"code": "x", "message": "Odd."}]}))
        assert not path.exists()
    read = Page(path)
    check_closed(read)
    assert [link["href"] for link in read.all("a")] == ["#s1", "#s2", "#s3"]
    assert [section["id"] for section in read.all("section")] == ["s1", "s2", "s3"]
    assert "2 predictions, 1 of them left to a human, 1 input without one." in read.words
    assert "<b>.dcm: it ends <early>." in read.words
    assert [name for name, _ in read.tags].count("h1") == 1
    assert len(read.all("img")) == 1


def test_one_failure_alone_and_nothing_at_all(tmp_path):
    with HtmlPage(tmp_path / "r.html") as page:
        page.add_failure("x.dcm", "It is empty.")
    assert "x.dcm There is no prediction It is empty." in Page(tmp_path / "r.html").words
    with HtmlPage(tmp_path / "r.html"):
        pass
    assert "MediScan: 0 inputs" in Page(tmp_path / "r.html").words


def test_what_was_done_before_an_interrupt_is_written(prediction, tmp_path):
    with pytest.raises(KeyboardInterrupt), HtmlPage(tmp_path / "r.html") as page:
        page.add(prediction)
        page.add(prediction)
        raise KeyboardInterrupt
    assert len(Page(tmp_path / "r.html").all("section")) == 2


def test_the_older_page_stays_where_the_new_one_cannot_be_written(prediction, tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    path.write_text("old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(WriteError, match="No space left"):
        write_html(prediction, path)
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["r.html"]
    (tmp_path / "file").write_text("x")
    for place in (tmp_path, tmp_path / "file" / "r.html"):
        with pytest.raises(UsageError, match="cannot be written"):
            write_html(prediction, place)
