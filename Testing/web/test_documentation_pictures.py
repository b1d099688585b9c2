"""Pictures of the page for the documentation, of a phantom, taken behind a token; see `make pictures`."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from paging import Reader, RunningPage, chromium
from PIL import Image
from serving import RunningServer

from MediScanLib.server.storage.database import Database
from MediScanLib.server.storage.tokens import TokenStore

MODELS = Path(__file__).resolve().parents[2] / "Resources" / "Models"
MOST_BYTES = 350_000


@pytest.fixture(scope="module")
def page_server(tmp_path_factory):
    chromium()
    folder = tmp_path_factory.mktemp("pictures") / "data"
    with RunningServer(folder, MODELS, models=("mediscan-general",), require_token=True) as server:
        token = TokenStore(Database(server.settings.database_url)).add("reading room", "submitter")
        with RunningPage(server, spare=0) as page:
            page.token = token
            yield page


def test_pictures(browser, page_server, output_folder):
    folder = output_folder / "docs"
    folder.mkdir(exist_ok=True)
    reader = Reader(browser, page_server.url, size=(1180, 820))
    page = reader.page

    def save(name):
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        file = folder / f"web-{name}.png"
        picture.quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
        assert file.stat().st_size < MOST_BYTES

    def look_at(selector):
        page.evaluate(
            "(one) => window.scrollTo(0, document.querySelector(one).getBoundingClientRect().top + scrollY - 12)",
            selector,
        )

    page.goto(page_server.url)
    save("sign-in")
    page.fill("#token", "mediscan_000000000000_mistyped")
    page.press("#token", "Enter")
    page.wait_for_selector("text=not known")
    page.fill("#token", page_server.token)
    page.press("#token", "Enter")
    page.wait_for_selector("#run")
    assert "reading room" in reader.text("header")
    page.wait_for_selector("#run")
    save("empty")
    reader.sample()
    page.fill("#temperature_c", "384")
    page.press("#temperature_c", "Tab")
    page.click("#run")
    page.wait_for_selector("#problem:visible")
    reader.still()
    save("problem")
    page.fill("#temperature_c", "38,4")
    page.press("#temperature_c", "Tab")
    page.wait_for_selector("#temperature_c[aria-invalid=false]")
    reader.run()
    page.set_viewport_size({"width": 1180, "height": 1400})
    reader.still()
    page.evaluate("window.scrollTo(0, 0)")
    save("result")
    page.set_viewport_size({"width": 1180, "height": 820})
    page.click("#compare-findings")
    page.wait_for_selector("#second")
    reader.still()
    look_at(".views")
    save("side-by-side")
    page.click("#what-if summary")
    page.select_option("#try-field", "crp_mg_per_l")
    reader.slide("try-value", 250)
    page.wait_for_function("document.querySelector('#try-status').textContent.startsWith('Tried')")
    page.click("#review summary")
    look_at("#what-if")
    save("what-if-and-review")
    page.click("#leave")
    page.set_viewport_size({"width": 390, "height": 844})
    reader.still()
    page.evaluate("window.scrollTo(0, 0)")
    save("phone")
    page_server.stop()
    page.wait_for_selector("#lost:visible")
    page.set_viewport_size({"width": 1180, "height": 820})
    save("connection")
    reader.context.close()
