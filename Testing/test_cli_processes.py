"""The command line as a process: signals, pipes, terminals, imports, exit codes and what else a user's shell sees."""

from __future__ import annotations

import csv
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from MediScanLib import cli
from MediScanLib.notice import RESEARCH_USE_NOTICE

MEDISCAN = (sys.executable, "-m", "MediScanLib.cli")
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default"}
POSIX_ONLY = pytest.mark.skipif(os.name != "posix", reason="signals, limits and terminals of POSIX")

# stands still before the image of that name, until somebody ends it: a run can be stopped at a known place
STANDING_STILL = """
import sys, time
from pathlib import Path
import MediScanLib.prediction.batch as batch
from MediScanLib.cli import main
read = batch.read_image
def read_or_wait(path, **options):
    if path.name == sys.argv[1]:
        Path(sys.argv[2]).touch()
        time.sleep(600)
    return read(path, **options)
batch.read_image = read_or_wait
main(sys.argv[3:])
"""


@pytest.fixture
def images(tmp_path) -> Path:
    """A folder of 20 small pictures: two batches and a half."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(20):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 50), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


def mediscan(*arguments: object, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*MEDISCAN, *map(str, arguments)], capture_output=True, text=True, env=ENVIRONMENT, timeout=120, **options
    )


def read(path: Path) -> list[dict]:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        return json.loads(text)
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return list(csv.DictReader(text.splitlines()))


def modules_after(code: str) -> set[str]:
    """Top-level modules that are loaded once `code` has run."""
    script = f"{code}\nimport sys\nprint('\\n'.join(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    return set(done.stdout.splitlines())


HEAVY = {"torch", "monai", "vtk", "vtkmodules", "slicer", "SimpleITK", "numpy", "PIL", "pydicom", "pydantic", "scipy"}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["predict", "--help"], ["models", "--help"]])
def test_help_and_version_load_nothing_heavy(arguments):
    code = f"from MediScanLib.cli import main\nassert main({arguments}, standalone_mode=False) in (0, None)"
    assert not modules_after(code) & HEAVY


@POSIX_ONLY
@pytest.mark.parametrize(("how", "name"), [("SIGINT", "r.json"), ("SIGKILL", "r.jsonl"), ("SIGTERM", "r.csv")])
def test_stopped_in_the_middle_and_gone_on_with(images, tmp_path, how, name):
    output, arrived = tmp_path / name, tmp_path / "arrived"
    arguments = ["predict", str(images), "--output", str(output)]
    child = subprocess.Popen(
        [sys.executable, "-c", STANDING_STILL, "18.png", str(arrived), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    try:
        deadline = time.monotonic() + 100
        while not arrived.exists():
            assert child.poll() is None and time.monotonic() < deadline, child.stderr.read()
            time.sleep(0.05)
        child.send_signal(getattr(signal, how))
        stdout, stderr = child.communicate(timeout=60)
    finally:
        child.kill()
    assert stdout == ""
    done = read(output)
    assert [Path(entry["input"]).name for entry in done] == [f"{number:02}.png" for number in range(16)]
    if how == "SIGINT":
        assert child.returncode == cli.EXIT_INTERRUPTED
        assert stderr == "Stopped: 16 of 20 inputs done. Go on with --resume.\n"
    else:
        assert child.returncode == -getattr(signal, how)
    again = CliRunner().invoke(cli.main, [*arguments, "--resume"])
    assert again.exit_code == 0, again.stderr
    assert "4 done, 0 failed, 16 from before." in again.stderr
    assert read(output)[:16] == done
    assert len(read(output)) == 20


@POSIX_ONLY
def test_ctrl_c_while_loading_is_no_traceback(images, tmp_path):
    code = f"""
import os, signal
import MediScanLib.cli as cli
cli._load = lambda *_: os.kill(os.getpid(), signal.SIGINT)
cli.main(["predict", {str(images)!r}, "--output", {str(tmp_path / "r.json")!r}])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (cli.EXIT_INTERRUPTED, "", "Stopped.\n")
    assert not (tmp_path / "r.json").exists()


@POSIX_ONLY
def test_a_reader_that_goes_away_ends_the_run_quietly(images):
    child = subprocess.Popen(
        [*MEDISCAN, "predict", str(images)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
    )
    assert json.loads(child.stdout.readline())["input"] == str(images / "00.png")
    child.stdout.close()
    assert child.stderr.read() == ""
    assert child.wait(timeout=60) == 1


@POSIX_ONLY
def test_full_disk_leaves_whole_results(images, tmp_path):
    def small_files_only() -> None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    output = tmp_path / "r.json"
    done = mediscan("predict", images, "--output", output, preexec_fn=small_files_only)
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Cannot write")
    assert done.stderr.count("\n") == 1
    assert 0 < len(read(output)) < 5


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_full_disk_behind_standard_output(images):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*MEDISCAN, "predict", str(images)], stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
    assert done.returncode == 1
    assert done.stderr.startswith("Error: Cannot write")


@POSIX_ONLY
@pytest.mark.parametrize("terminal", ["stdout+stderr", "stderr", "stdout"])
def test_progress_bar_on_a_terminal_only(images, terminal):
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    child = subprocess.Popen(
        [*MEDISCAN, "predict", str(images / "00.png"), str(images / "01.png")],
        stdout=theirs if "stdout" in terminal else subprocess.PIPE,
        stderr=theirs if "stderr" in terminal else subprocess.PIPE,
        env=ENVIRONMENT,
    )
    os.close(theirs)
    seen = b""
    try:
        while block := os.read(ours, 65536):
            seen += block
    except OSError:  # how Linux says that the other side has closed
        pass
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0
    shown = seen.decode()
    bar_seen = "2/2 [" in shown
    assert bar_seen == ("stderr" in terminal)
    if terminal == "stdout":
        assert err.decode() == f"2 done, 0 failed. {RESEARCH_USE_NOTICE}\n"
    if terminal == "stderr":
        assert [json.loads(line)["input"] for line in out.splitlines()] == [str(images / f"0{i}.png") for i in (0, 1)]
    else:
        starts = [line.rpartition("\r")[2] for line in shown.replace("\r\n", "\n").splitlines() if '"input"' in line]
        assert [json.loads(start)["input"] for start in starts] == [str(images / f"0{i}.png") for i in (0, 1)]


def test_awkward_real_files_leave_only_json_and_one_line(shared_data):
    """Files at which pydicom, Pillow or a decoder warns or fails; a few of each kind."""
    files = sorted((shared_data / "dicom" / "files").iterdir())[::12]
    done = mediscan("predict", *files)
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    assert [entry["input"] for entry in entries] == [str(path) for path in files]
    failed = sum("error" in entry for entry in entries)
    assert done.returncode == (cli.EXIT_SOME_FAILED if failed else 0)
    assert done.stderr == f"{len(files) - failed} done, {failed} failed. {RESEARCH_USE_NOTICE}\n"


@pytest.mark.skipif(sys.platform != "linux", reason="file names that are no text exist on Linux only")
def test_file_name_that_is_no_text(images, tmp_path):
    strange = os.fsencode(images) + b"/\xff\xfe.png"
    os.rename(images / "00.png", strange)  # noqa: PTH104 (bytes)
    output = tmp_path / "r.json"
    first = subprocess.run(
        [*MEDISCAN, "predict", strange, "--output", str(output), "--overlay", str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
        timeout=120,
    )
    assert first.returncode == 0, first.stderr
    (entry,) = read(output)
    assert entry["input"] == f"{images}/\\xff\\xfe.png"
    assert len(list((tmp_path / "out").glob("*.png"))) == 1


def test_from_any_folder_and_in_any_encoding(images, tmp_path):
    (images / "00.png").rename(images / "胸.png")
    done = subprocess.run(
        [*MEDISCAN, "predict", "胸.png"],
        capture_output=True,
        cwd=images,
        env={**ENVIRONMENT, "PYTHONIOENCODING": "ascii"},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.decode("utf-8"))["input"] == "胸.png"


def test_exit_codes_reach_the_shell(tmp_path):
    wrong = mediscan("predict", "x.png", "--slice", "x", cwd=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (cli.EXIT_WRONG_USE, "")
    failed = mediscan("predict", "x.png", cwd=tmp_path)
    assert failed.returncode == cli.EXIT_SOME_FAILED
    assert json.loads(failed.stdout)["error"]["code"] == "not_found"


def without_root_rights() -> None:
    """Takes away root's right to pass over permissions, from the program that is started next."""
    cap_dac_override, cap_dac_read_search, pr_capbset_drop = 1, 2, 24
    for capability in (cap_dac_override, cap_dac_read_search):
        ctypes.CDLL(None).prctl(pr_capbset_drop, capability, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities of Linux")
def test_what_may_not_be_read_or_written(images, tmp_path):
    (images / "00.png").chmod(0)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    pair = (images / "00.png", images / "01.png")
    done = mediscan("predict", *pair, preexec_fn=without_root_rights)
    assert done.returncode == cli.EXIT_SOME_FAILED, done.stderr
    failed, fine = map(json.loads, done.stdout.splitlines())
    assert failed["error"]["code"] == "permission_denied"
    assert fine["input"] == str(pair[1])
    for option, name in (("--output", "r.json"), ("--overlay", "out")):
        done = mediscan("predict", pair[1], option, locked / name, preexec_fn=without_root_rights)
        assert done.returncode == cli.EXIT_WRONG_USE
        assert done.stderr.startswith("Error: ")
        assert "Permission denied" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="scripts lie elsewhere")
def test_installed_command_is_the_module(tmp_path):
    command = Path(sys.executable).with_name("mediscan")
    if not command.exists():
        pytest.skip("not installed, run from a checkout")
    done = subprocess.run([command, "--version"], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.stdout == mediscan("--version", cwd=tmp_path).stdout
