"""The table of training cases of a bundle: what may stand in it, and that it belongs to the weights beside it."""

from __future__ import annotations

import json
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from MediScanLib.config import ModelConfig
from MediScanLib.errors import BundleError
from MediScanLib.network import cases as module
from MediScanLib.network.bundle import (
    CARD_FILE,
    DEFAULT_BUNDLE,
    WEIGHTS_FILE,
    Bundle,
    file_sha256,
    load_bundle,
    save_bundle,
)
from MediScanLib.network.cases import CASES_FILE, COLUMNS, MAX_CASES_BYTES, Case, format_cases, parse_cases
from MediScanLib.network.fusion import FusionNetwork
from MediScanLib.network.installing import add_model, export_model, verify_models
from MediScanLib.network.novelty import Novelty
from toys import make_card

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
HEADER = ",".join(COLUMNS).encode() + b"\n"
CASES = [
    Case("pneumonia", "nih", "NIH: unrestricted use with attribution", "AP", 60, "F", "00008230_000"),
    Case("covid", 'co"hen', "CC BY-NC, 4.0"),
    *[Case("normal", "nih", "not stated", age_years=0)] * 4,
]


# the table

TEXT = st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), min_size=1, max_size=30)
ANY_CASE = st.builds(
    Case,
    label=TEXT,
    source=TEXT,
    licence=TEXT,
    view=st.none() | TEXT,
    age_years=st.none() | st.sampled_from(range(0, 100, 10)),
    sex=st.sampled_from([None, "F", "M"]),
    image=st.none() | TEXT.filter(lambda name: not set(name) & set("/\\:") and name not in (".", "..")),
)


@given(st.lists(ANY_CASE, max_size=5))
def test_what_is_written_comes_back(cases) -> None:
    assert parse_cases(format_cases(cases), "cases.csv") == tuple(cases)


@settings(max_examples=300)
@given(st.binary(max_size=300) | st.builds(lambda end: HEADER + end, st.binary(max_size=300)))
def test_any_bytes_are_cases_or_a_bundle_error(content) -> None:
    try:
        found = parse_cases(content, "cases.csv")
    except BundleError as error:
        assert str(error).startswith("cases.csv")
    else:
        assert parse_cases(format_cases(found), "again") == found


CELL = st.sampled_from(
    ["", "normal", "F", "X", "60", "65", "-10", "1e1", "٦٠", "../x", "C:x", "a.png", "..", '"', "\n", "\x1b[2J", "‮x"]
) | st.text(max_size=5)


@settings(max_examples=300)
@given(st.lists(CELL, min_size=6, max_size=8))
def test_whatever_the_cells_what_is_believed_is_harmless(cells) -> None:
    line = ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)
    try:
        content = HEADER + line.encode()
    except UnicodeEncodeError:
        return
    try:
        (case,) = parse_cases(content, "cases.csv")
    except BundleError:
        return
    assert case.label and case.source and case.licence
    assert case.age_years is None or (case.age_years % 10 == 0 and 0 <= case.age_years <= 90)
    assert case.sex in (None, "F", "M")
    assert case.image is None or Path(case.image).name == case.image
    assert all(cell.isprintable() for cell in cells)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "columns"),
        (b"\xff\xfe", "decode"),
        (b"label,source\n", "columns"),
        (HEADER + b"normal,nih,CC0\n", "row 2: .* 3 cells"),
        (HEADER + b"normal,nih,CC0,,,,\n\n", "row 3: .* 0 cells"),
        (HEADER + b"normal,,CC0,,,,\n", "row 2: .*source is empty"),
        (HEADER + b"normal,nih,,,,,\n", "licence is empty"),
        (HEADER + b"normal,nih,CC0,,63,,\n", "rounded to tens"),
        (HEADER + b"normal,nih,CC0,,100,,\n", "rounded to tens"),
        (HEADER + b"normal,nih,CC0,,,O,\n", "sex 'O'"),
        (HEADER + b"normal,nih,CC0,,,,../x.png\n", "more than a name"),
        (HEADER + b"normal,nih,CC0,,,,C:x\n", "more than a name"),
        (HEADER + b'normal,"n\nih",CC0,,,,\n', "plain text"),
        (HEADER + b"normal,\x1b[31mnih,CC0,,,,\n", "plain text"),
        (HEADER + b"normal," + b"n" * 201 + b",CC0,,,,\n", "too long"),
        (HEADER + b'normal,"nih"x,CC0,,,,\n', "expected after"),
        (HEADER + b'normal,"nih,CC0,,,,\n', "end of data"),
    ],
)
def test_a_table_that_is_none_says_why(content, says) -> None:
    with pytest.raises(BundleError, match=rf"cases.csv.*{says}"):
        parse_cases(content, "cases.csv")


def test_a_large_table_is_not_parsed(monkeypatch) -> None:
    content = HEADER + b"normal,nih,CC0,,,,\n" * 10
    assert len(parse_cases(content, "cases.csv")) == 10
    monkeypatch.setattr(module, "MAX_CASES_BYTES", len(content) - 1)
    with pytest.raises(BundleError, match="too many"):
        parse_cases(content, "cases.csv")


# in a bundle


@pytest.fixture(scope="module")
def network() -> FusionNetwork:
    torch.manual_seed(0)
    network = FusionNetwork.build(ModelConfig(weights="none"))
    network.novelty = Novelty.fit(torch.randn(len(CASES), network.encoder.out_channels))
    return network


@pytest.fixture(scope="module")
def made(network, tmp_path_factory) -> Bundle:
    return save_bundle(network, make_card(), tmp_path_factory.mktemp("made"), CASES)


@pytest.fixture
def folder(made, tmp_path) -> Path:
    """A bundle that may be damaged; its weights are shared by a link."""
    folder = tmp_path / "toy"
    folder.mkdir()
    for name in (CARD_FILE, CASES_FILE):
        (folder / name).write_bytes((made.folder / name).read_bytes())
    (folder / WEIGHTS_FILE).hardlink_to(made.folder / WEIGHTS_FILE)
    return folder


def trust(folder: Path) -> Path:
    """Write the hash of the table into the card, as whoever makes a bundle can."""
    card = json.loads((folder / CARD_FILE).read_text())
    card["files"][CASES_FILE] = file_sha256(folder / CASES_FILE)
    (folder / CARD_FILE).write_text(json.dumps(card))
    return folder


def test_a_bundle_keeps_its_cases(made) -> None:
    assert sorted(path.name for path in made.folder.iterdir()) == [CARD_FILE, CASES_FILE, WEIGHTS_FILE]
    assert sorted(made.card.files) == [CASES_FILE, WEIGHTS_FILE]
    again = load_bundle(made.folder)
    assert again.load_cases(again.load_network()) == tuple(CASES)


def test_a_bundle_without_cases_loads_and_tells_of_none(network, tmp_path) -> None:
    bundle = save_bundle(network, make_card(), tmp_path)
    assert list(bundle.card.files) == [WEIGHTS_FILE]
    assert bundle.load_cases(network) == ()


def test_bundles_from_before_still_load() -> None:
    shipped = load_bundle(DEFAULT_BUNDLE)
    older = Bundle(shipped.folder, shipped.card.model_copy(update={"files": {WEIGHTS_FILE: shipped.sha256}}))
    assert older.load_cases(older.load_network()) == ()


def test_cases_that_do_not_fit_the_network_are_not_saved(network, tmp_path) -> None:
    with pytest.raises(BundleError, match="tells of 2 training cases, and the network remembers 6"):
        save_bundle(network, make_card(), tmp_path, CASES[:2])
    assert not list(tmp_path.iterdir())


def test_a_changed_table_is_refused(folder) -> None:
    bundle = load_bundle(folder)
    path = folder / CASES_FILE
    path.write_bytes(path.read_bytes().replace(b"pneumonia", b"normal"))
    with pytest.raises(BundleError, match=r"cases.csv: SHA-256 is .* damaged or changed"):
        load_bundle(folder)
    with pytest.raises(BundleError, match="damaged or changed"):
        bundle.load_cases(bundle.load_network())


def test_a_missing_table_is_told(folder) -> None:
    bundle = load_bundle(folder)
    (folder / CASES_FILE).unlink()
    with pytest.raises(BundleError, match=r"cases.csv is missing"):
        load_bundle(folder)
    with pytest.raises(BundleError, match=r"cases.csv: cannot be read"):
        bundle.load_cases(bundle.load_network())


def test_a_huge_table_is_not_even_hashed(folder) -> None:
    with (folder / CASES_FILE).open("ab") as stream:
        stream.truncate(MAX_CASES_BYTES + 1)
    with pytest.raises(BundleError, match=r"cases.csv: is too large"):
        load_bundle(trust(folder))


@pytest.mark.parametrize("kind", ["another training's", "no table"])
def test_a_table_that_fits_its_hash_only_is_found_out_by_adding_and_verifying(folder, kind, monkeypatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(folder.parent / "home"))
    monkeypatch.setattr("sys.platform", "linux")
    wrong = format_cases(CASES[1:]) if kind == "another training's" else b"MZ"
    (folder / CASES_FILE).write_bytes(wrong)
    trust(folder)
    (checked,) = verify_models([str(folder)])
    assert checked.bundle is None
    assert "cases" in str(checked.error)
    with pytest.raises(BundleError, match=r"cannot be installed.*cases"):
        add_model(folder)


def test_it_is_added_from_a_folder_and_from_what_was_exported(made, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.platform", "linux")
    archive = tmp_path / "toy.zip"
    export_model(made.folder, archive)
    for source in (made.folder, archive):
        bundle = add_model(source)
        assert bundle.folder.is_relative_to(tmp_path / "home")
        assert bundle.load_cases(bundle.load_network()) == tuple(CASES)
    (checked,) = verify_models(["toy"])
    assert checked.error is None


def test_every_file_of_a_bundle_is_packaged() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns = settings["package-data"]["MediScanLib.models"]
    for name in (CARD_FILE, WEIGHTS_FILE, CASES_FILE):
        assert any(fnmatch(f"{DEFAULT_BUNDLE}/{name}", pattern) for pattern in patterns), name
