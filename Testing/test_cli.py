"""The command line as its users meet it, in this process; what needs a process of its own is in test_cli_processes."""

from __future__ import annotations

import csv
import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from click.testing import CliRunner, Result
from PIL import Image

from MediScanLib import __version__, cli
from MediScanLib.config import InferenceConfig
from MediScanLib.network.bundle import DEFAULT_BUNDLE, WEIGHTS_FILE, load_bundle
from MediScanLib.network.card import Card
from MediScanLib.notice import RESEARCH_USE_NOTICE
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.prediction.result import Prediction


@pytest.fixture(scope="session")
def shipped() -> Predictor:
    return Predictor.load(DEFAULT_BUNDLE, "cpu")


@pytest.fixture
def mediscan(shipped, monkeypatch, tmp_path):
    """Runs a command in an empty folder with the shipped model, which is loaded once for all tests."""

    def load(model, device, settings):
        assert (model, device) == (DEFAULT_BUNDLE, "auto"), "tests of models and devices use `mediscan_loading`"
        return Predictor(shipped.bundle, shipped.network, shipped.device, settings)

    monkeypatch.setattr(cli, "_load", load)
    monkeypatch.chdir(tmp_path)
    return run


@pytest.fixture
def mediscan_loading(monkeypatch, tmp_path):
    """Runs a command in an empty folder; the model is loaded as the command says."""
    monkeypatch.chdir(tmp_path)
    return run


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(cli.main, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def lines(result: Result) -> list[dict]:
    """Standard output, which must be JSON lines and nothing else."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def picture(path: Path | str, seed: int = 0, shape: tuple[int, ...] = (48, 64)) -> Path:
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return Path(path)


def codes(entries: list[dict]) -> list[str]:
    return [entry["error"]["code"] if "error" in entry else "" for entry in entries]


# What comes out


def test_one_image_gives_one_line_that_is_a_prediction(mediscan):
    picture("scan.png")
    result = mediscan("predict", "scan.png")
    assert result.exit_code == 0
    (entry,) = lines(result)
    prediction = Prediction.model_validate(entry)
    assert prediction.input == "scan.png"
    assert prediction.notice == RESEARCH_USE_NOTICE
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert result.stderr == f"1 done, 0 failed. {RESEARCH_USE_NOTICE}\n"


def test_folder_with_bad_files_goes_on_and_ends_with_3(mediscan):
    picture("in/a.png")
    Path("in/b.png").write_text("not an image")
    Path("in/c.dcm").touch()
    Path("in/d.jpg").write_bytes(picture("whole.jpg", shape=(300, 300)).read_bytes()[:2000])
    Path("in/notes.txt").write_text("passed over")
    picture("in/sub/e.png")
    result = mediscan("predict", "in")
    assert result.exit_code == cli.EXIT_SOME_FAILED
    entries = lines(result)
    assert [Path(entry["input"]).as_posix() for entry in entries] == [
        "in/a.png",
        "in/b.png",
        "in/c.dcm",
        "in/d.jpg",
        "in/sub/e.png",
    ]
    assert codes(entries) == ["", "not_an_image", "empty", "truncated", ""]
    assert all(set(entry) == {"input", "error"} for entry in entries if "error" in entry)
    assert "2 done, 3 failed" in result.stderr


def test_results_stand_in_the_order_of_the_inputs(mediscan):
    picture("a.png"), picture("b.png")
    Path("empty").mkdir()
    entries = lines(mediscan("predict", "b.png", "missing.png", "empty", "a.png"))
    assert [entry["input"] for entry in entries] == ["b.png", "missing.png", "empty", "a.png"]
    assert codes(entries) == ["", "not_found", "empty", ""]


def test_the_same_input_is_done_once_however_it_is_spelled(mediscan, tmp_path):
    picture("in/a.png")
    result = mediscan("predict", "in/a.png", "in/a.png", "./in//a.png", tmp_path / "in" / "a.png", "in", "in/", "./in")
    assert [entry["input"] for entry in lines(result)] == [str(Path("in/a.png"))]


def test_names_in_any_script(mediscan):
    name = str(picture("Röntgen/胸部 ☃.png"))
    result = mediscan("predict", "Röntgen", "--output", "größe.json", "--overlay", "Bilder ü")
    assert result.exit_code == 0
    (entry,) = json.loads(Path("größe.json").read_text(encoding="utf-8"))
    assert entry["input"] == name
    assert Path("Bilder ü/胸部 ☃.png").is_file()


def test_sixteen_bit_picture_and_volume_file(mediscan):
    pixels = np.random.default_rng(0).integers(0, 65535, (40, 50), dtype=np.uint16)
    Image.fromarray(pixels).save("sixteen.png")
    volume = SimpleITK.GetImageFromArray(np.random.default_rng(1).normal(size=(11, 30, 40)).astype(np.float32))
    SimpleITK.WriteImage(volume, "volume.nii.gz")
    sixteen, three_d = lines(mediscan("predict", "sixteen.png", "volume.nii.gz"))
    assert sixteen["image"]["shape"] == [1, 40, 50]
    assert three_d["image"]["shape"] == [11, 30, 40]
    assert [score["index"] for score in three_d["slices"]] == list(range(11))
    assert "neighboring slices" in three_d["volume_rule"]


def test_slice_of_a_volume_among_single_images(mediscan):
    picture("single.png")
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.random.default_rng(1).random((5, 30, 40), np.float32)), "volume.nrrd"
    )
    result = mediscan("predict", "single.png", "volume.nrrd", "--slice", 4)
    assert result.exit_code == cli.EXIT_SOME_FAILED
    single, volume = lines(result)
    assert single["error"]["code"] == "usage"
    assert "no slice 4; it has 1" in single["error"]["message"]
    assert {tuple(heat_map["index"][:1]) for heat_map in volume["heat_maps"] if heat_map["peak"] > 0} == {(4,)}
    assert mediscan("predict", "single.png", "--slice", 0).exit_code == 0


def test_real_radiographs_with_overlays(mediscan, shared_data):
    images = sorted((shared_data / "images" / "nih").glob("*.jpg"))[:2]
    result = mediscan("predict", *images, "--output", "r.json", "--overlay", "out")
    assert result.exit_code == 0
    entries = json.loads(Path("r.json").read_text(encoding="utf-8"))
    assert [entry["input"] for entry in entries] == [str(path) for path in images]
    for entry, path in zip(entries, images, strict=True):
        label = entry["certainty"]["label"]
        files = {heat_map["label"]: heat_map["file"] for heat_map in entry["heat_maps"]}
        assert files.pop(label) == str(Path("out") / f"{path.stem}.png")
        assert set(files.values()) == {None}
        with Image.open(Path("out") / f"{path.stem}.png") as drawn:
            drawn.load()
            assert drawn.size[0] > 1000
    assert len(list(Path("out").iterdir())) == 2, "no scratch files stay"


def test_real_ct_folder_is_one_volume(mediscan, shared_data):
    folder = shared_data / "dicom" / "ct_philips_tilt"
    with warnings.catch_warnings(record=True) as spilled:
        (entry,) = lines(mediscan("predict", f"{folder}/", "--slice", 3))
    assert not spilled, "warnings of libraries stay away from the user"
    assert entry["input"] == str(folder)
    assert entry["image"]["shape"][0] > 50
    assert entry["image"]["modality"] == "CT"
    assert entry["clinical"]["prefilled"] == ["sex"]
    assert any("gantry tilt" in warning for warning in entry["image"]["warnings"])


def test_a_folder_is_named_by_a_dot(mediscan, monkeypatch, tmp_path):
    picture("in/a.png")
    monkeypatch.chdir("in")
    assert mediscan("predict", ".", "--overlay", tmp_path / "out").exit_code == 0
    assert (tmp_path / "out" / "a.png").is_file()


# Result files


@pytest.mark.parametrize("name", ["r.json", "r.jsonl", "r.csv"])
def test_resume_does_only_what_has_no_result(mediscan, name):
    picture("in/a.png"), picture("in/b.png")
    Path("in/c.png").write_text("broken")
    first = mediscan("predict", "in", "--output", f"new/folder/{name}")
    assert first.exit_code == cli.EXIT_SOME_FAILED
    assert first.stdout == ""
    before = read(f"new/folder/{name}")
    picture("in/c.png")
    again = mediscan("predict", Path("in").resolve(), "--output", f"new/folder/{name}", "--resume")
    assert again.exit_code == 0
    assert "1 done, 0 failed, 2 from before." in again.stderr
    after = read(f"new/folder/{name}")
    assert after[:2] == before[:2]
    assert [Path(entry["input"]).name for entry in after] == ["a.png", "b.png", "c.png"]
    nothing = mediscan("predict", Path("in").resolve(), "--output", f"new/folder/{name}", "--resume")
    assert "0 done, 0 failed, 3 from before." in nothing.stderr
    assert read(f"new/folder/{name}") == after


def read(name: str) -> list[dict]:
    text = Path(name).read_text(encoding="utf-8")
    if name.endswith(".json"):
        return json.loads(text)
    return (
        [json.loads(line) for line in text.splitlines()]
        if name.endswith("l")
        else list(csv.DictReader([*text.splitlines()]))
    )


def test_without_resume_an_older_file_is_replaced(mediscan):
    picture("a.png"), picture("b.png")
    mediscan("predict", "a.png", "--output", "r.json")
    mediscan("predict", "b.png", "--output", "r.json")
    assert [entry["input"] for entry in read("r.json")] == ["b.png"]


@pytest.mark.parametrize("name", ["r.json", "r.csv"])
def test_resume_from_another_model_is_wrong_use(mediscan, name):
    picture("a.png")
    mediscan("predict", "a.png", "--output", name)
    text = Path(name).read_text(encoding="utf-8")
    Path(name).write_text(text.replace(load_bundle(DEFAULT_BUNDLE).sha256, "f" * 64), encoding="utf-8")
    result = mediscan("predict", "a.png", "--output", name, "--resume")
    assert result.exit_code == cli.EXIT_WRONG_USE
    assert "another model" in result.stderr


def test_csv_row_holds_what_the_json_says(mediscan):
    picture("a.png")
    mediscan("predict", "a.png", "missing.png", "--output", "r.csv", "--clinical", '{"age_years": 63, "sex": "M"}')
    row, failed = read("r.csv")
    (entry,) = lines(mediscan("predict", "a.png", "--clinical", '{"age_years": 63, "sex": "M"}'))
    for finding in entry["findings"]:
        assert float(row[f"probability_{finding['label']}"]) == pytest.approx(finding["probability"], abs=1e-6)
        assert row[f"decision_{finding['label']}"] == finding["decision"]
    assert row["clinical_used"] == "age_years=63.0 sex=M"
    assert row["notice"] == RESEARCH_USE_NOTICE
    assert (failed["input"], failed["error_code"], failed["finding"]) == ("missing.png", "not_found", "")


def test_pictures_of_an_earlier_run_are_no_input(mediscan):
    picture("in/a.png")
    for _ in range(2):
        assert "1 done" in mediscan("predict", "in", "--overlay", "in/out", "--output", "in/r.json").stderr
    assert "1 done" in mediscan("predict", "in/out", "--overlay", "again").stderr, "unless they are asked for"


# Clinical values


@pytest.mark.parametrize("form", ["text", "json", "csv"])
def test_clinical_values_for_all_inputs(mediscan, form):
    picture("a.png"), picture("b.png")
    Path("c.json").write_text('{"age_years": "63 y", "temperature_c": "38,4"}')
    Path("c.csv").write_text("age_years;temperature_c\n63;38,4\n")
    given = {"text": '{"age_years": 63, "temperature_c": 38.4}', "json": "c.json", "csv": "c.csv"}[form]
    for entry in lines(mediscan("predict", "a.png", "b.png", "--clinical", given)):
        assert entry["clinical"]["used"] == {"age_years": 63, "temperature_c": 38.4}
        assert entry["clinical"]["prefilled"] == []


def test_clinical_rows_go_to_their_inputs(mediscan, tmp_path):
    for name in ("in/a.png", "in/b.png", "in/c.png", "in/d.png"):
        picture(name)
    rows = ["input,age_years,sex", "a.png,10,F", "./in/b.png,20,", f"{tmp_path / 'in' / 'c.png'},30,M", "z.png,99,M"]
    Path("c.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    result = mediscan("predict", "in", "--clinical", "c.csv")
    used = [entry["clinical"]["used"] for entry in lines(result)]
    assert used == [{"age_years": 10, "sex": "F"}, {"age_years": 20}, {"age_years": 30, "sex": "M"}, {}]
    assert "not there: z.png." in result.stderr


def test_clinical_values_change_the_result(mediscan):
    picture("a.png")
    (without,), (with_values,) = (
        lines(mediscan("predict", "a.png", *extra)) for extra in ((), ("--clinical", '{"crp_mg_per_l": 200}'))
    )
    assert without["findings"] != with_values["findings"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ('{"age_years": 263}', "age_years: 263 is outside the plausible range 0 to 120 years"),
        ('{"agee_years": 63}', "Did you mean 'age_years'"),
        ('{"age_years": 1, "age_years": 2}', "twice"),
        ("{age: 3", "not valid JSON"),
        ("[]", "holds no record"),
        ("", "empty"),
        ("missing.json", "missing.json: no such file"),
        ("bad.csv", "bad.csv, row 3: temperature_c"),
    ],
)
def test_bad_clinical_values_are_wrong_use(mediscan, given, says):
    picture("a.png")
    Path("bad.csv").write_text("input,temperature_c\na.png,37\nb.png,370\n")
    result = mediscan("predict", "a.png", "--clinical", given, "--output", "r.json")
    assert result.exit_code == cli.EXIT_WRONG_USE
    assert says in result.stderr
    assert not Path("r.json").exists(), "nothing was begun"


# Wrong use


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "Missing argument"),
        (("",), "INPUT is empty"),
        (("a.png", "--slice", "x"), "--slice takes a number counted from 0, or all, not 'x'"),
        (("a.png", "--slice", "-1"), "not '-1'"),
        (("a.png", "--slice", "1.5"), "not '1.5'"),
        (("a.png", "--slice", "²"), "not '²'"),
        (("a.png", "--slice", "9" * 5000), "--slice takes a number"),
        (("a.png", "--resume"), "give --output"),
        (("a.png", "--output", "r.txt"), ".json, .jsonl or .csv"),
        (("a.png", "--output", "a.png/r.json"), "cannot be written"),
        (("a.png", "--output", "c.json", "--clinical", "c.json"), "would replace the file of --clinical"),
        (("a.png", "--overlay", "a.png"), "a.png: is no folder"),
        (("a.png", "--overlay", "."), "would replace an input"),
        (("a.png", "--overlay", "out", "--config", "quiet.yaml"), "explainability"),
        (("a.png", "--config", "wrong.yaml"), "did you mean max_batch_size"),
        (("a.png", "--config", "missing.yaml"), "missing.yaml: cannot be read"),
        (("a.png", "--output", "c.json", "--resume"), "does not hold MediScan's results"),
        (("a.png", "--nonsense"), "No such option"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(mediscan, arguments, says):
    original = picture("a.png").read_bytes()
    Path("c.json").write_text('{"age_years": 63}')
    Path("wrong.yaml").write_text("inference:\n  max_batchsize: 3\n")
    Path("quiet.yaml").write_text("inference:\n  explainability: false\n")
    result = mediscan("predict", *arguments)
    assert result.exit_code == cli.EXIT_WRONG_USE
    assert says in result.stderr
    assert result.stdout == ""
    assert Path("a.png").read_bytes() == original
    assert Path("c.json").read_text() == '{"age_years": 63}'
    assert not Path("out").exists()


@pytest.mark.parametrize("device", ["cuda:99", "gpu", "CPU"])
def test_missing_device_lists_what_there_is(mediscan_loading, device):
    picture("a.png")
    result = mediscan_loading("predict", "a.png", "--device", device)
    assert result.exit_code == cli.EXIT_WRONG_USE
    assert f"no device {device!r}" in result.stderr
    assert "auto" in result.stderr
    assert "cpu" in result.stderr


@pytest.mark.parametrize(
    ("model", "says"), [("nope", "no such model"), (".", "no such model"), ("tampered", "SHA-256")]
)
def test_model_that_cannot_be_used(mediscan_loading, model, says):
    picture("a.png")
    shutil.copytree(load_bundle(DEFAULT_BUNDLE).folder, "tampered")
    with Path("tampered", WEIGHTS_FILE).open("r+b") as stream:
        stream.seek(-1, 2)
        stream.write(b"\xff")
    result = mediscan_loading("predict", "a.png", "--model", model)
    assert result.exit_code == cli.EXIT_WRONG_USE
    assert says in result.stderr
    verified = mediscan_loading("models", "verify", model)
    assert verified.exit_code == cli.EXIT_SOME_FAILED
    assert verified.stdout.startswith("damaged")


def test_model_of_a_folder_and_settings_of_a_file(mediscan_loading):
    picture("a.png")
    shutil.copytree(load_bundle(DEFAULT_BUNDLE).folder, "copy")
    Path("quiet.yaml").write_text("inference: {explainability: false, severity_scoring: false}\n")
    (entry,) = lines(
        mediscan_loading("predict", "a.png", "--model", "copy/", "--device", "cpu", "--config", "quiet.yaml")
    )
    assert entry["heat_maps"] == []
    assert "switched off" in entry["severity"]["reason"]
    assert entry["provenance"]["device"] == "cpu"


# Pages for people


def test_one_input_becomes_a_page_with_pictures(mediscan):
    picture("scan.png")
    result = mediscan("predict", "scan.png", "--output", "new/r.html", "--clinical", '{"age_years": 63}')
    assert (result.exit_code, result.stdout) == (0, "")
    assert [path.name for path in Path("new").iterdir()] == ["r.html"]
    page = Path("new/r.html").read_text(encoding="utf-8")
    assert page.count(RESEARCH_USE_NOTICE) >= 2
    assert "63 years" in page
    assert "<h1><bdi>scan.png</bdi></h1>" in page
    (entry,) = lines(mediscan("predict", "scan.png", "--clinical", '{"age_years": 63}'))
    present = {finding["label"] for finding in entry["findings"] if finding["decision"] == "present"}
    assert page.count("data:image/jpeg;base64,") == len(present | {entry["certainty"]["label"]})


def test_several_inputs_become_one_page_that_tells_failures(mediscan):
    picture("in/a.png"), picture("in/b.png", 1)
    Path("in/c&c.png").write_text("broken")
    Path("quiet.yaml").write_text("inference: {explainability: false}\n")
    Path("r.htm").write_text("older")
    result = mediscan("predict", "in", "--output", "r.htm", "--config", "quiet.yaml")
    assert result.exit_code == cli.EXIT_SOME_FAILED
    page = Path("r.htm").read_text(encoding="utf-8")
    assert page.count("<section ") == 3
    assert page.count("There is no prediction") == 1
    assert "c&amp;c.png" in page
    assert "c&c.png" not in page
    assert "older" not in page
    assert "No heat maps were made." in page


def test_a_page_cannot_be_gone_on_from(mediscan):
    picture("a.png")
    result = mediscan("predict", "a.png", "--output", "r.html", "--resume")
    assert result.exit_code == cli.EXIT_WRONG_USE
    assert "a page is made anew" in result.stderr
    assert not Path("r.html").exists()
    result = mediscan("predict", "a.png", "--output", "r.txt")
    assert ".json, .jsonl or .csv, and as an .html page" in result.stderr


# Reviews


def test_reviews_are_listed_and_exported(mediscan, monkeypatch, tmp_path):
    from MediScanLib.report.reviews import Review, ReviewStore

    monkeypatch.setenv("MEDISCAN_REVIEWS", str(tmp_path / "mine" / "r.sqlite"))
    nothing = mediscan("reviews", "list")
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    picture("a.png")
    (entry,) = lines(mediscan("predict", "a.png"))
    prediction = Prediction.model_validate(entry)
    store = ReviewStore()
    store.add(Review.of(prediction, agree=True, reader="A"))
    store.add(
        Review.of(
            prediction, agree=False, corrected_label="effusion", corrected_severity=0.5, note="left\n\x1b[31mside"
        )
    )
    listed = mediscan("reviews", "list").stdout
    assert len(listed.splitlines()) == 2
    assert f"{prediction.top.label}: disagrees: effusion, severity 0.50  # left [31mside" in listed
    assert "2 reviews, 1 agree. They lie in" in mediscan("reviews", "list").stderr
    for filter_ in (("--model", "other"), ("--since", "2999-01-01")):
        assert mediscan("reviews", "list", *filter_).stdout == ""
        assert mediscan("reviews", "export", "none.csv", *filter_).stdout == "none.csv: 0 reviews\n"
    assert mediscan("reviews", "export", "r.csv").stdout == "r.csv: 2 reviews\n"
    assert [row["corrected_label"] for row in read("r.csv")] == ["", "effusion"]
    assert mediscan("reviews", "export", "r.jsonl", "--since", "2020-01-01").exit_code == 0
    assert [Prediction.model_validate(found["prediction"]) for found in read("r.jsonl")] == [prediction] * 2
    store.path.write_bytes(b"not a database, but long enough to be taken for one" * 50)
    damaged = mediscan("reviews", "list")
    assert damaged.exit_code == cli.EXIT_WRONG_USE
    assert "r.sqlite: cannot be read" in damaged.stderr
    assert "Traceback" not in damaged.stderr


# Models and demo


def test_models_are_packed_added_and_removed(mediscan_loading, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("sys.platform", "linux")
    shipped = load_bundle(DEFAULT_BUNDLE)
    assert "came with MediScan" in mediscan_loading("models", "remove", DEFAULT_BUNDLE).stderr
    packed = mediscan_loading("models", "export", DEFAULT_BUNDLE, "m.zip")
    assert packed.exit_code == 0
    digest = packed.stdout.split()[-1]
    wrong = mediscan_loading("models", "add", "m.zip", "--sha256", "0" * 64)
    assert (wrong.exit_code, wrong.stdout) == (cli.EXIT_WRONG_USE, "")
    assert digest in wrong.stderr
    added = mediscan_loading("models", "add", "m.zip", "--sha256", digest)
    assert added.exit_code == 0
    assert shipped.card.weights_licence in added.stdout
    folder = tmp_path / "home" / "MediScan" / "Models" / DEFAULT_BUNDLE
    assert load_bundle(DEFAULT_BUNDLE).folder == folder
    assert mediscan_loading("models", "remove", DEFAULT_BUNDLE).stdout == f"{DEFAULT_BUNDLE} is removed.\n"
    assert load_bundle(DEFAULT_BUNDLE).folder == shipped.folder
    assert "known" in mediscan_loading("models", "add", "http://127.0.0.1/m.zip").stderr


def test_models_are_listed_shown_and_verified(mediscan_loading):
    bundle = load_bundle(DEFAULT_BUNDLE)
    assert mediscan_loading("models", "list").stdout.startswith(f"{bundle.name} {bundle.version}  ")
    shown = mediscan_loading("models", "show").stdout
    for fact in (bundle.sha256, bundle.card.weights_licence, RESEARCH_USE_NOTICE, *bundle.card.cautions):
        assert fact in shown
    assert Card.model_validate_json(mediscan_loading("models", "show", "--json").stdout) == bundle.card
    verified = mediscan_loading("models", "verify")
    assert (verified.exit_code, verified.stdout) == (0, f"ok      {bundle.name} {bundle.version} {bundle.sha256}\n")


@pytest.mark.parametrize("command", ["list", "verify"])
def test_no_model_at_all(mediscan_loading, monkeypatch, tmp_path, command):
    monkeypatch.setattr("MediScanLib.network.bundle.search_path", lambda: [tmp_path / "nowhere"])
    result = mediscan_loading("models", command)
    assert result.exit_code == cli.EXIT_SOME_FAILED
    assert "nowhere" in result.stderr


def test_demo_is_clearly_a_phantom(mediscan):
    result = mediscan("demo", "--output", "my demo")
    assert result.exit_code == 0
    assert "made by code, no patient" in result.stdout
    assert RESEARCH_USE_NOTICE in result.stdout
    prediction = Prediction.from_json(Path("my demo/phantom.json").read_bytes())
    assert "phantom" in prediction.input
    with Image.open("my demo/phantom.png") as drawn:
        assert drawn.size[0] > 600
    for place in ("Picture", "Prediction"):
        line = next(line for line in result.stdout.splitlines() if line.startswith(place))
        assert Path(line.partition(":")[2].strip()).is_absolute()


def test_demo_into_a_place_that_is_no_folder(mediscan):
    Path("taken").touch()
    result = mediscan("demo", "--output", "taken")
    assert result.exit_code == 1
    assert "Cannot write" in result.stderr


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("predict", "--help"), ("demo", "--help")])
def test_help_says_that_this_is_for_research(mediscan_loading, arguments):
    result = mediscan_loading(*arguments)
    assert result.exit_code == 0
    assert RESEARCH_USE_NOTICE in " ".join(result.stdout.split())


def test_version(mediscan_loading):
    assert mediscan_loading("--version").stdout == f"mediscan {__version__}\n{RESEARCH_USE_NOTICE}\n"


def test_default_settings_are_those_of_the_configuration(mediscan, shipped):
    assert shipped.settings == InferenceConfig()


def test_explanations_are_asked_for_on_the_command_line(mediscan):
    picture("a.png")
    result = mediscan("predict", "a.png", "--explain", "gradcam++", "--against", "normal", "--check-map")
    (line,) = result.stdout.splitlines()
    said = json.loads(line)
    assert {(part["method"], part["against"]) for part in said["heat_maps"]} == {("gradcam++", "normal")}
    assert all(verdict["verdict"] for verdict in said["faithfulness"])


def test_an_explanation_that_there_is_not_is_refused(mediscan):
    picture("a.png")
    result = mediscan("predict", "a.png", "--explain", "tea-leaves")
    assert result.exit_code == 2
    assert "integrated-gradients" in result.stderr
    unknown = mediscan("predict", "a.png", "--against", "gout")
    assert json.loads(unknown.stdout)["error"]["message"].startswith("mediscan-general knows no finding 'gout'")
