"""Splits: patients whole, strata in proportion, the same seed the same split, and everything stored."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from MediScanLib.commands.data import data
from MediScanLib.errors import DataError
from MediScanLib.training.manifest import read_rows, write_manifest
from MediScanLib.training.splitting import (
    make_folds,
    make_splits,
    parse_fractions,
    patient_groups,
    split_manifest,
)

COLUMNS = ("image", "source", "patient", "split", "label", "age_years", "remark")


def cohort(patients=120):
    """Groups of 1 to 4 studies and their strata, one stratum rare."""
    rng = np.random.default_rng(1)
    groups, strata = [], []
    for patient in range(patients):
        stratum = "s rare" if patient < 10 else f"s {('normal', 'cancer')[patient % 2]}"
        count = int(rng.integers(1, 5))
        groups += [patient] * count
        strata += [stratum] * count
    return groups, strata


def parts_of(groups, chosen):
    parts = defaultdict(set)
    for group, part in zip(groups, chosen, strict=True):
        parts[group].add(part)
    return parts


@given(
    st.lists(st.tuples(st.integers(0, 15), st.sampled_from("abc")), min_size=30, max_size=80),
    st.integers(2, 4),
    st.integers(0, 5),
)
@settings(max_examples=40, deadline=None)
def test_no_group_is_torn_and_nobody_is_lost(members, folds, seed):
    groups, strata = [group for group, _ in members], [stratum for _, stratum in members]
    try:
        chosen = make_folds(groups, strata, folds, seed)
    except DataError:
        assert len(set(groups)) < folds or max(Counter(strata).values()) < folds
        return
    assert set(chosen) <= set(range(folds))
    assert all(len(parts) == 1 for parts in parts_of(groups, chosen).values())


def test_folds_keep_the_proportions():
    groups, strata = cohort()
    chosen = make_folds(groups, strata, 5, 0)
    for stratum, total in Counter(strata).items():
        counts = Counter(fold for fold, s in zip(chosen, strata, strict=True) if s == stratum)
        assert all(abs(counts[fold] - total / 5) <= max(4, 0.1 * total) for fold in range(5)), (stratum, counts)


@pytest.mark.parametrize("text", [".7,.1,.2", ".8,.1,.1", ".5,.25,.25", ".34,.33,.33", ".65,.2,.15"])
def test_fractions_are_met(text):
    groups, strata = cohort(400)
    fractions = parse_fractions(text)
    chosen = make_splits(groups, strata, fractions, 0)
    assert all(len(parts) == 1 for parts in parts_of(groups, chosen).values())
    counts = Counter(chosen)
    for name, share in fractions.items():
        assert counts[name] / len(groups) == pytest.approx(share, abs=0.03)
    for stratum in set(strata):
        assert {part for part, s in zip(chosen, strata, strict=True) if s == stratum} == set(fractions)


def test_an_empty_split_stays_empty():
    groups, strata = cohort()
    assert set(make_splits(groups, strata, parse_fractions(".9,.1,0"), 0)) == {"train", "val"}
    assert set(make_splits(groups, strata, parse_fractions("1,0,0"), 0)) == {"train"}


def test_the_seed_decides():
    groups, strata = cohort()
    assert make_folds(groups, strata, 5, 0) == make_folds(groups, strata, 5, 0)
    assert make_folds(groups, strata, 5, 0) != make_folds(groups, strata, 5, 1)


@pytest.mark.parametrize("text", ["", ".7,.3", ".7,.1,x", ".7,.1,.1,.1"])
def test_text_that_is_no_fractions(text):
    with pytest.raises(DataError, match="not three fractions"):
        parse_fractions(text)


@pytest.mark.parametrize("text", [".7,.1,.1", "1.2,-.1,-.1", "nan,0,1"])
def test_fractions_that_do_not_add_up(text):
    with pytest.raises(DataError, match="do not add up to 1"):
        make_splits(*cohort(), parse_fractions(text), 0)


def test_too_few_patients():
    with pytest.raises(DataError, match="5 folds cannot be made from 2 patients"):
        make_folds([1, 1, 2, 2, 2, 2], ["a"] * 6, 5, 0)


def test_groups_join_patients_and_copies():
    sources, patients = ["a", "a", "b", "b", "b"], ["1", "1", "1", "2", "3"]
    alone = patient_groups(sources, patients)
    assert alone[0] == alone[1]
    assert len(set(alone)) == 4, "patient 1 of another source is another person"
    linked = patient_groups(sources, patients, [(1, 2), (2, 3)])
    assert linked[0] == linked[1] == linked[2] == linked[3] != linked[4]


@pytest.fixture
def manifest(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    rows = []
    for number in range(60):
        name = f"images/{number}.png"
        Image.fromarray(rng.integers(0, 255, (16, 16), np.uint8)).resize((64, 64)).save(tmp_path / name)
        label = "normal" if number % 3 else "cancer"
        rows.append(
            {"image": name, "source": "s", "patient": f"p{number // 2}", "label": label, "age_years": "40"}
            | {"remark": f"n{number}", "split": ""}
        )
    path = tmp_path / "manifest.csv"
    write_manifest(path, COLUMNS, rows)
    return path


def test_splits_are_stored_and_nothing_else_changes(manifest):
    output = manifest.with_name("split.csv")
    split_manifest(manifest, output, fractions=parse_fractions(".6,.2,.2"))
    columns, rows = read_rows(output)
    before_columns, before = read_rows(manifest)
    assert columns == before_columns
    assert {row["split"] for row in rows} == {"train", "val", "test"}
    assert [{**row, "split": ""} for row in rows] == before


def test_folds_are_stored_beside_the_split(manifest):
    output = manifest.with_name("folds.csv")
    counts = split_manifest(manifest, output, folds=3)
    columns, rows = read_rows(output)
    assert columns[columns.index("split") + 1] == "fold"
    assert {row["fold"] for row in rows} == {"0", "1", "2"}
    assert {row["split"] for row in rows} == {"train"}
    assert sum(sum(parts.values()) for parts in counts.values()) == 60


def test_the_official_test_split_is_kept(manifest):
    columns, rows = read_rows(manifest)
    for row in rows[:10]:
        row["split"] = "test"
    write_manifest(manifest, columns, rows)
    for kept in ({"fractions": parse_fractions(".8,.2,0")}, {"folds": 3}):
        output = manifest.with_name("kept.csv")
        split_manifest(manifest, output, keep_test=True, **kept)
        _, after = read_rows(output)
        assert [row["split"] == "test" for row in after] == [True] * 10 + [False] * 50
        assert all((row.get("fold", "") == "") == (row["split"] == "test" or "fractions" in kept) for row in after)


def test_images_are_found_from_another_folder(manifest, tmp_path):
    output = tmp_path / "elsewhere" / "split.csv"
    split_manifest(manifest, output, fractions=parse_fractions(".6,.2,.2"))
    _, rows = read_rows(output)
    assert rows[0]["image"] == "../images/0.png"
    assert (output.parent / rows[0]["image"]).exists()


def test_copies_stay_together(manifest, tmp_path):
    columns, rows = read_rows(manifest)
    picture = Image.open(tmp_path / rows[0]["image"])
    for number in range(2, 60, 7):  # the same picture at another size, under other patients
        picture.resize((96, 96), Image.Resampling.BICUBIC).save(tmp_path / rows[number]["image"])
    write_manifest(manifest, columns, rows)
    places = [0, *range(2, 60, 7)]

    def splits(**kwargs):
        output = manifest.with_name("out.csv")
        split_manifest(manifest, output, folds=5, **kwargs)
        return {read_rows(output)[1][place]["fold"] for place in places}

    assert len(splits()) > 1
    assert len(splits(together=True)) == 1


def test_command(manifest):
    output = manifest.with_name("out.csv")
    result = CliRunner().invoke(data, ["split", str(manifest), "--output", str(output), "--seed", "3"])
    assert result.exit_code == 0, result.output
    assert "s cancer" in result.output
    assert Counter(row["split"] for row in read_rows(output)[1])["train"] == pytest.approx(42, abs=4)
    again = CliRunner().invoke(data, ["split", str(manifest), "--output", str(output), "--folds", "3"])
    assert again.exit_code == 0, again.output
    both = CliRunner().invoke(data, ["split", str(manifest), "--output", "x", "--folds", "3", "--fractions", "1,0,0"])
    assert both.exit_code == 2
    assert "not both" in both.output


@pytest.mark.parametrize(("folds", "fractions"), [(None, None), (5, {"train": 1.0})])
def test_folds_or_fractions(manifest, folds, fractions):
    with pytest.raises(DataError, match="either"):
        split_manifest(manifest, manifest, folds=folds, fractions=fractions)


@pytest.mark.shared_data
def test_real_folds_hold_every_label_of_every_source(shared_data, tmp_path):
    counts = split_manifest(shared_data / "studies.csv", tmp_path / "folds.csv", folds=5)
    blocks = {name for name in counts if name.startswith("iqothnccd")}  # four blocks of benign slices, five folds
    assert all(len(parts) == 5 for name, parts in counts.items() if name not in blocks)
    for name in ("nih normal", "nih pneumonia", "bone_roboflow fracture", "cohen covid"):
        assert max(counts[name].values()) - min(counts[name].values()) <= 3
