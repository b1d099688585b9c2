from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from MediScanLib.errors import UsageError
from MediScanLib.report.names import picture_paths

OUT = Path("/pictures")


def names(*inputs: str) -> list[str]:
    return [path.name for path in picture_paths([Path(name) for name in inputs], OUT).values()]


def test_plain_names_lose_their_ending():
    assert names("/a/chest.dcm", "/b/leg.jpg") == ["chest.png", "leg.png"]


def test_colliding_names_keep_their_ending_and_then_get_a_number():
    assert names("/a/x.dcm", "/a/x.jpg", "/b/X.JPG") == ["x.dcm.png", "x.jpg.png", "X.JPG-2.png"]


def test_a_folder_named_by_a_dot_has_the_name_of_the_folder(tmp_path, monkeypatch):
    series = tmp_path / "series"
    series.mkdir()
    monkeypatch.chdir(series)
    assert names(".") == ["series.png"]
    assert names("/") == ["image.png"]


def test_a_picture_never_replaces_an_input(tmp_path):
    (tmp_path / "a.png").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "link"):
        with pytest.raises(UsageError, match="would replace an input"):
            picture_paths([tmp_path / "a.png"], folder)


FILE_NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=80)


@given(st.lists(FILE_NAMES.filter(lambda name: name not in (".", "..")), unique=True, max_size=8))
def test_no_two_are_alike_and_none_is_too_long(inputs):
    pictures = picture_paths([Path("/in") / name for name in inputs], OUT)
    assert len(pictures) == len(inputs)
    assert len({path.name.lower() for path in pictures.values()}) == len(inputs)
    assert all(path.parent == OUT and len(path.name.encode()) < 230 for path in pictures.values())
