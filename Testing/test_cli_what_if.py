"""`mediscan what-if` as its users meet it."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from MediScanLib import cli
from MediScanLib.notice import RESEARCH_USE_NOTICE
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.study.reading import read_image
from MediScanLib.study.record import ClinicalRecord

CLINICAL = '{"age_years": 42, "sex": "M", "crp_mg_per_l": 210}'


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path) -> Path:
    """An empty folder with one picture."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64), dtype=np.uint8)
    Image.fromarray(pixels).save("scan.png")
    return tmp_path


def what_if(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.main, ["what-if", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def table(path: str = "curve.csv") -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_a_table_is_printed_and_a_csv_holds_the_same() -> None:
    result = what_if("scan.png", "--clinical", CLINICAL, "--field", "crp_mg_per_l", "--output", "curve.csv")
    assert result.exit_code == 0
    head, columns, *lines = result.stdout.splitlines()
    assert head.startswith("C-reactive protein (mg/L), known in ")
    assert columns.split() == ["value", "normal", "pneumonia", "covid", "fracture", "cancer"]
    (now,) = [line for line in lines if line.startswith("*")]
    said = Predictor.load(device="cpu")(
        read_image("scan.png"), ClinicalRecord(age_years=42, sex="M", crp_mg_per_l=210)
    ).probabilities
    assert now.split()[1:] == ["210", *(f"{p:.4f}" for p in said.values())]
    rows = table()
    assert len(rows) == len(lines)
    assert [row["value"] for row in rows if row["current"] == "True"] == ["210.0"]
    for row, line in zip(rows, lines, strict=True):
        assert (row["extrapolated"] == "True") == ("~" in line)
        assert f"{float(row['probability_covid']):.4f}" in line
    assert rows[0]["value"] == ""
    assert (float(rows[1]["value"]), float(rows[-1]["value"])) == (0, 800)
    assert RESEARCH_USE_NOTICE in result.stderr
    assert "curve.csv" in result.stderr


def test_without_a_field_all_that_was_learned_are_tried() -> None:
    result = what_if("scan.png", "--output", "curve.csv", "--points", 3)
    learned = [
        name for name, known in Predictor.load(device="cpu").bundle.card.clinical.items() if known.known_fraction > 0
    ]
    assert list(dict.fromkeys(row["field"] for row in table())) == learned
    assert result.stdout.count("* ") == len(learned), "every value is unknown now"


def test_a_field_that_was_never_learned_is_said_to_be() -> None:
    result = what_if("scan.png", "--field", "heart_rate_per_min")
    assert "never learned" in result.stdout
    assert len(result.stdout.splitlines()) == 3


def test_a_picture_is_drawn() -> None:
    pytest.importorskip("matplotlib")
    fields = [
        word for name in ("sex", "age_years", "crp_mg_per_l", "heart_rate_per_min") for word in ("--field", name)
    ]
    assert what_if("scan.png", "--clinical", CLINICAL, *fields, "--output", "sub/curve.png").exit_code == 0
    drawn = np.asarray(Image.open("sub/curve.png").convert("RGB"))
    assert min(drawn.shape[:2]) > 600
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 100


def test_without_matplotlib_a_picture_is_refused_before_the_work(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    result = what_if("not there.png", "--output", "curve.png")
    assert result.exit_code == cli.EXIT_WRONG_USE
    assert "pip install matplotlib" in result.stderr
    assert what_if("scan.png", "--field", "sex", "--output", "curve.csv").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["scan.png", "--output", "curve.pdf"], ".csv or drawn as .png"),
        (["scan.png", "--field", "crp"], "Did you mean 'crp_mg_per_l'"),
        (["not there.png"], "not there.png"),
        (["scan.png", "--clinical", '{"age_years": 420}'], "age_years"),
        (["scan.png", "--slice", "7"], "no slice 7"),
        (["scan.png", "--points", "1"], "--points"),
        (["scan.png", "--model", "none-such"], "no such model"),
        ([], "IMAGE"),
    ],
)
def test_wrong_use_is_one_sentence(arguments, says) -> None:
    result = what_if(*arguments)
    assert result.exit_code == cli.EXIT_WRONG_USE
    assert says in result.stderr
    assert "Traceback" not in result.stderr
    assert not Path("curve.csv").exists()


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys\nfrom MediScanLib import cli\n"
        "try:\n    cli.main(['what-if', '--help'])\nexcept SystemExit:\n    pass\n"
        "print({'torch', 'monai', 'matplotlib', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "set()"
    assert "--field" in done.stdout
