"""The page in a real browser, Chromium. Pictures of real studies go to Testing/output/web."""

from __future__ import annotations

import csv
import io
import re
import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from paging import Reader, RunningPage, chromium
from PIL import Image
from playwright.sync_api import TimeoutError as PlaywrightTimeoutError
from serving import RunningServer, dicom_slices

from MediScanLib.prediction.colormaps import color_table
from MediScanLib.report.reviews import ReviewStore
from MediScanLib.study.fields import FIELDS

MODELS = Path(__file__).resolve().parents[2] / "Resources" / "Models"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser") / "data"
    with RunningServer(folder, MODELS, models=("mediscan-general",), requests_per_minute=0) as running:
        yield running


@pytest.fixture(scope="module")
def page_server(server):
    chromium()
    with RunningPage(server, most_users=4, spare=1) as running:
        yield running


@pytest.fixture
def come(browser, page_server):
    here = []

    def make(**keywords):
        reader = Reader(browser, page_server.url, **keywords)
        here.append(reader)
        return reader.come()

    yield make
    for reader in here:
        assert reader.errors == []
        reader.leave()


@pytest.fixture(scope="module")
def radiograph(shared_data):
    with (shared_data / "studies.csv").open(encoding="utf-8") as stream:
        row = next(r for r in csv.DictReader(stream) if r["source"] == "nih" and r["label"] == "pneumonia")
    return shared_data / row["image"]


@pytest.fixture
def pictures(output_folder):
    folder = output_folder / "web"
    folder.mkdir(exist_ok=True)
    return folder


def drawn(plain, overlaid):
    """Share of pixels that a heat map changes."""
    return float((np.abs(overlaid - plain).sum(axis=2) > 24).mean())


def hottest(plain, overlaid):
    """(row, column) of the hottest pixels of a heat map that is drawn with full opacity, as shares of the view."""
    rows, columns = np.nonzero(np.abs(overlaid - plain).sum(axis=2) > 24)
    distance = ((overlaid[rows, columns][:, None, :] - color_table("inferno").astype(int)[None]) ** 2).sum(axis=2)
    heat = np.where(distance.min(axis=1) < 400, distance.argmin(axis=1), 0)
    top = heat >= heat.max() - 3
    return rows[top].mean() / plain.shape[0], columns[top].mean() / plain.shape[1]


def test_a_real_radiograph_from_upload_to_overlay(come, radiograph, pictures):
    reader = come()
    page = reader.page
    assert page.is_disabled("#run")
    reader.upload(radiograph)
    plain = reader.picture()
    assert plain.std() > 30, "the image itself is drawn"
    for name, value in (("age_years", "63"), ("temperature_c", "38,4 C")):
        page.fill(f"#{name}", value)
        page.press(f"#{name}", "Tab")
    reader.run()
    page.screenshot(path=pictures / "radiograph.png")
    said = reader.result()
    assert said["clinical"]["used"] == {"age_years": 63.0, "temperature_c": 38.4}
    top = max(said["findings"], key=lambda finding: finding["probability"])
    assert reader.text(".bars li:first-child .label") == top["label"]
    assert reader.text(".bars li:first-child .percent") == f"{100 * top['probability']:.0f} %"
    certainty, findings = (page.locator(one).bounding_box()["y"] for one in ("#certainty", "#results"))
    assert certainty < findings, "certainty stands above everything"
    assert page.locator("#certainty.deferred").count() == said["certainty"]["deferred"]

    half = reader.picture()
    assert 0.03 < drawn(plain, half) < 0.7
    reader.slide("opacity", 100)
    full = reader.picture()
    assert np.abs(full - plain).mean() > 1.4 * np.abs(half - plain).mean(), "twice the opacity"
    _, row, column = next(m["index"] for m in said["heat_maps"] if m["label"] == top["label"])
    rows, columns = said["image"]["shape"][1:]
    height, width = plain.shape[:2]
    scale = min(height / rows, width / columns)  # the image fills the view
    expected = (0.5 + (row - rows / 2) * scale / height, 0.5 + (column - columns / 2) * scale / width)
    assert np.hypot(*np.subtract(hottest(plain, full), expected)) < 0.05

    reader.slide("opacity", 0)
    assert drawn(plain, reader.picture()) < 0.01
    reader.slide("opacity", 60)
    reader.slide("threshold", 70)
    assert drawn(plain, reader.picture()) < drawn(plain, half)
    reader.slide("threshold", 10)
    page.uncheck("#visible")
    assert drawn(plain, reader.picture()) < 0.01
    page.check("#visible")
    inferno = reader.picture()
    page.select_option("#colors", "viridis")
    assert np.abs(reader.picture() - inferno).mean() > 1

    other = page.locator("#finding option").nth(1).get_attribute("value")
    page.select_option("#finding", other)
    page.wait_for_selector(f"#view-main[aria-label='Image with the heat map of {other}']")
    assert reader.text("#legend")
    elsewhere = {urlsplit(url).hostname for url in reader.asked if not url.startswith(("blob:", "data:"))}
    assert elsewhere == {"127.0.0.1"}, "nothing comes from elsewhere"


def test_side_by_side(come, radiograph, pictures):
    reader = come()
    reader.upload(radiograph)
    plain_alone = reader.picture()
    reader.run()
    reader.slide("threshold", 0)
    reader.page.click("#compare-original")
    reader.page.wait_for_selector("#view-right img")
    left, right = reader.picture("#view-left"), reader.picture("#view-right")
    assert drawn(left[40:], right[40:]) > 0.2, "the label stands in the first rows"
    assert np.ptp(left[40:], axis=2).max() < 30, "the original is gray"
    reader.page.click("#compare-findings")
    reader.page.wait_for_selector("#second")
    first, second = reader.picture("#view-left"), reader.picture("#view-right")
    assert np.ptp(first, axis=2).max() > 60
    assert np.abs(first[40:] - second[40:]).mean() > 0.5
    reader.page.screenshot(path=pictures / "two-findings.png")
    reader.slide("opacity", 0)
    assert np.ptp(reader.picture("#view-left")[40:], axis=2).max() < 30, "both follow the opacity"
    reader.page.click("#leave")
    reader.page.wait_for_selector("#view-main img")
    assert drawn(plain_alone, reader.picture()) < 0.01


def test_two_users_at_once(come, radiograph):
    first, second = come(), come()
    first.upload(radiograph)
    second.sample()
    for reader in (first, second):
        reader.page.click("#run")
    for reader in (first, second):
        reader.page.wait_for_selector("#results")
    assert radiograph.name in first.text("#study")
    assert radiograph.name not in second.text(".page")
    assert "Phantom" in second.text("#study")
    assert "Phantom" not in first.text(".page")
    assert first.result()["input"] == radiograph.name
    assert second.result()["input"] == "Phantom with an opacity"
    before = second.picture()
    first.slide("opacity", 100)
    first.page.click("#forget")
    first.page.wait_for_selector("text=Choose a study")
    assert np.abs(second.picture() - before).mean() < 0.5, "what one does, the other does not see"
    assert second.page.input_value("#opacity") == "50"


def test_a_bad_file_is_explained_and_the_page_goes_on(come):
    reader = come()
    for name, data, said in (
        ("notes.txt", b"hello", "notes.txt: is not an image"),
        ("cut.png", b"\x89PNG\r\n\x1a\n" + bytes(50), "cut.png"),
    ):
        reader.page.set_input_files("#files", {"name": name, "mimeType": "image/png", "buffer": data})
        reader.page.wait_for_function(
            "(said) => document.querySelector('#problem').innerText.includes(said)", arg=said
        )
    reader.sample()
    assert not reader.page.is_visible("#problem")


def test_a_value_that_cannot_be_is_marked_and_holds_up_the_run(come):
    reader = come()
    reader.sample()
    page = reader.page
    page.fill("#temperature_c", "384")
    page.press("#temperature_c", "Tab")
    page.wait_for_selector("#temperature_c[aria-invalid=true]")
    assert "25 to 45 °C" in reader.text("#temperature_c-hint")
    page.click("#run")
    page.wait_for_selector("#problem:visible")
    assert "Temperature" in reader.text("#problem")
    assert page.evaluate("document.querySelector('#problem').getBoundingClientRect().top") >= 0, "it is seen"
    page.click("#temperature_c-unknown")
    page.wait_for_selector("#temperature_c[aria-invalid=false]")
    assert page.input_value("#temperature_c") == ""
    reader.run()
    assert reader.result()["clinical"]["used"] == {}
    page.click("#patient summary")
    page.fill("#age_years", "70")
    page.press("#age_years", "Tab")
    page.wait_for_selector("#outdated")


def test_what_is_typed_fast_is_not_lost(come):
    reader = come()
    values = {"age_years": "63", "temperature_c": "38,4", "heart_rate_per_min": "90", "crp_mg_per_l": "120"}
    for name, value in values.items():
        reader.page.focus(f"#{name}")
        reader.page.keyboard.type(value)
    reader.page.keyboard.press("Tab")
    summary = reader.page.locator("#patient summary")
    with suppress(PlaywrightTimeoutError):  # what it says instead tells more
        reader.page.wait_for_function("document.querySelector('#patient summary').textContent.includes('4 of 10')")
    assert {name: reader.page.input_value(f"#{name}") for name in values} == values
    assert "4 of 10" in summary.text_content()


def test_what_if_review_and_export(come, server):
    reader = come()
    reader.sample()
    reader.run()
    page = reader.page
    said = [row.split() for row in page.locator("#what-if tbody tr").all_text_contents()]
    page.click("#what-if summary")
    page.select_option("#try-field", "age_years")
    reader.slide("try-value", 90)
    page.wait_for_function("document.querySelector('#try-status').textContent.startsWith('Tried: Age 90')")
    rows = page.locator("#what-if tbody tr")
    assert [rows.nth(at).locator("td").nth(0).inner_text() for at in range(rows.count())]
    tried = rows.all_text_contents()
    assert len(tried) == len(said)
    assert any("points" in row for row in tried)
    assert reader.result()["clinical"]["used"] == {}, "the original stays"
    page.click("#try-reset")
    page.wait_for_function(
        "![...document.querySelectorAll('#what-if tbody tr')].some((r) => r.innerText.includes('points'))"
    )

    store = ReviewStore(server.settings.reviews_file)
    page.click("#review summary")
    page.check("#review input[value=no]")
    page.select_option("#review-label", "pneumonia")
    page.fill("#review-severity", "40")
    page.fill("#review-note", "Basal, on the right.")
    page.click("#save-review")
    page.wait_for_function("document.querySelector('#review-status').textContent.startsWith('Saved')")
    review = store.all()[-1]
    assert (review.agree, review.corrected_label, review.corrected_severity) == (False, "pneumonia", 0.4)
    assert review.note == "Basal, on the right."

    for name, begin in (("JSON", b"["), ("CSV", b"input"), ("Report", b"<!doctype"), ("Picture", b"\x89PNG")):
        with page.expect_download() as download:
            page.click(f"#export a:has-text('{name}')")
        content = Path(download.value.path()).read_bytes()
        assert content.lower().startswith(begin.lower()), name


def test_a_volume_has_slices_and_a_run_can_be_cancelled(come):
    reader = come()
    files = [
        {"name": f"{at}.dcm", "mimeType": "application/dicom", "buffer": data}
        for at, data in enumerate(dicom_slices(40, 64))
    ]
    reader.upload(*files)
    page = reader.page
    assert page.input_value("#age_years") == "44"
    assert reader.text("#age_years-hint") == "from the image"
    assert page.input_value("#sex") == "F"
    first = reader.picture()
    reader.slide("slice", 3)
    page.wait_for_function("document.querySelector('label[for=slice]').innerText.includes('4 of 40')")
    assert np.abs(reader.picture() - first).mean() > 3
    page.click("#run")
    page.click("#cancel")
    page.wait_for_function("document.querySelector('#status').textContent === 'Cancelled.'")
    assert page.locator("#results").count() == 0
    reader.run()
    assert len(reader.result()["slices"]) == 40


def test_end_and_delete(come):
    reader = come()
    reader.sample()
    reader.page.reload()
    reader.page.wait_for_selector("#view-main img")
    assert "Phantom" in reader.text("#study"), "the study outlives a reload"
    reader.page.click("text=End and delete")
    reader.page.wait_for_selector("text=Choose a study")
    assert reader.page.locator("#view-main").count() == 0


def test_with_the_keyboard_alone(come):
    reader = come()
    page = reader.page

    def tab_to(name):
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id || document.activeElement.innerText") == name:
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none", f"one sees where {name} is"
                return
        raise AssertionError(f"{name} cannot be reached")

    tab_to("Phantom with an opacity")
    page.keyboard.press("Enter")
    page.wait_for_selector("#view-main img")
    tab_to("sex")
    page.keyboard.type("F")
    tab_to("run")
    page.keyboard.press("Space")
    page.wait_for_selector("#results")
    tab_to("opacity")
    page.keyboard.press("ArrowRight")
    page.wait_for_function("document.querySelector('label[for=opacity]').innerText.includes('51 %')")
    assert reader.result()["clinical"]["used"] == {"sex": "F"}
    unnamed = page.evaluate(
        """[...document.querySelectorAll('input, select, textarea, button, a')].filter((one) =>
        !(one.labels && one.labels.length) && !one.getAttribute('aria-label') && !one.textContent.trim() && !one.hidden
        ).map((one) => one.outerHTML.slice(0, 80))"""
    )
    assert unnamed == [], "every control has a name"
    assert page.locator(".field").count() == len(FIELDS)


@pytest.mark.parametrize("state", ["empty", "long", "result", "problem"])
def test_at_the_width_of_a_phone(come, pictures, state):
    reader = come(size=(390, 844))
    page = reader.page
    if state == "long":
        buffer = io.BytesIO()
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), dtype=np.uint8)).save(buffer, "PNG")
        name = "Thorax" + "aufnahme" * 12 + ".png"
        reader.upload({"name": name, "mimeType": "image/png", "buffer": buffer.getvalue()})
    elif state == "result":
        reader.sample()
        reader.run()
    elif state == "problem":
        reader.page.set_input_files("#files", {"name": "a" * 110 + ".txt", "mimeType": "a/b", "buffer": b"hello"})
        page.wait_for_selector("#problem:visible")
    if state != "empty":
        time.sleep(0.3)
    page.screenshot(path=pictures / f"phone-{state}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390, "nothing hangs over the edge"
    small = page.evaluate(
        """[...document.querySelectorAll('button, .button, select')].filter((one) => one.offsetParent &&
        one.getBoundingClientRect().height < 40).map((one) => one.innerText)"""
    )
    assert small == [], "a finger needs 40 pixels"
    assert "research use only" in reader.text("footer")


def test_the_server_gone_and_back(browser, server):
    chromium()
    with RunningPage(server, spare=0) as gate:
        reader = Reader(browser, gate.url).come()
        reader.sample()
        gate.stop()
        reader.page.wait_for_selector("#lost:visible")
        assert "does not answer" in reader.text("#lost")
        gate.start()
        reader.page.wait_for_function("document.querySelector('#lost').innerText.includes('session has ended')")
        assert reader.page.evaluate("document.activeElement.id") == "lost-again"
        reader.page.keyboard.press("Enter")
        reader.page.wait_for_selector("#run")
        reader.sample()
        assert not reader.page.is_visible("#lost")
        reader.leave()


def test_the_predicting_server_gone_and_back(browser, tmp_path_factory):
    chromium()
    folder = tmp_path_factory.mktemp("gone") / "data"
    with RunningServer(folder, MODELS, models=("mediscan-general",)) as server, RunningPage(server, spare=0) as gate:
        reader = Reader(browser, gate.url).come()
        reader.sample()
        server.stop()
        reader.page.click("#run")
        reader.page.wait_for_selector("#problem:visible")
        assert re.search("127.0.0.1", reader.text("#problem"))
        server.start()
        reader.run()
        assert not reader.page.is_visible("#problem")
        reader.leave()
