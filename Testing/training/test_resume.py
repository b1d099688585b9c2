"""A run that is killed at any moment goes on to the weights that it would have had."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_manifest import small_config, write_manifest

from MediScanLib.training.checkpoint import load_checkpoint
from MediScanLib.training.recipe import TrainingRun, train_bundle

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]

CHILD = """
import os, signal, sys
from pathlib import Path
import torch
from small_manifest import small_config
from MediScanLib.progress import CallbackProgress
from MediScanLib.training import checkpoint
from MediScanLib.training.recipe import TrainingRun, train_bundle
from test_settings import SETTINGS

moment, manifest, output, cache = sys.argv[1], *map(Path, sys.argv[2:])
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

def kill():
    os.kill(os.getpid(), signal.SIGKILL)

def report(stage, done, total):
    if moment == "in an epoch" and (stage, done) == ("epoch 2 of 3", 2):
        kill()
    if moment == "among the images" and (stage, done) == ("images of train", 5):
        kill()

writes = []
fsync = os.fsync
def counted(descriptor):
    writes.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
    # the third time that the file of the last epoch is half on disk: that of epoch 2
    if moment == "in a checkpoint" and sum(name.startswith(".last.pt") for name in writes) == 3:
        kill()
    fsync(descriptor)
os.fsync = counted

run = TrainingRun(manifest, output, small_config(**SETTINGS), "toy", cache)
train_bundle(run, torch.device("cpu"), progress=CallbackProgress(report))
"""

SETTINGS = {"epochs": 3, "average_decay": 0.5, "learning_rate": 0.003}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("data"), {"train": 8, "val": 4})


@pytest.fixture(scope="module")
def uninterrupted(manifest, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    bundle = train_bundle(TrainingRun(manifest, folder, small_config(**SETTINGS), "toy", folder / "cache"), CPU)
    return bundle, load_checkpoint(folder / "last.pt")


def assert_same(first, second, where: str = "") -> None:
    """Bit by bit, but for how long it took."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first.keys() - {"seconds"}:
            assert_same(first[key], second[key], f"{where}.{key}")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for number, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_same(one, other, f"{where}[{number}]")
    else:
        assert first == second, where


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("moment", "epochs_done"), [("in an epoch", 1), ("in a checkpoint", 1), ("among the images", None)]
)
def test_a_killed_run_ends_with_the_same_weights(manifest, uninterrupted, tmp_path, moment, epochs_done) -> None:
    script = tmp_path / "child.py"
    script.write_text(CHILD, encoding="utf-8")
    (tmp_path / "test_settings.py").write_text(f"SETTINGS = {SETTINGS!r}\n", encoding="utf-8")
    output, cache = tmp_path / "out", tmp_path / "cache"
    paths = os.pathsep.join((str(ROOT), str(ROOT / "Testing"), str(tmp_path)))
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, str(script), moment, str(manifest), str(output), str(cache)]
    killed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    last = output / "last.pt"
    if epochs_done is None:
        assert not last.exists()
    else:
        assert len(load_checkpoint(last)["history"]) == epochs_done
    resume = last if last.exists() else None
    bundle = train_bundle(TrainingRun(manifest, output, small_config(**SETTINGS), "toy", cache, resume), CPU)
    expected, state = uninterrupted
    assert_same(load_checkpoint(last), state)
    assert bundle.sha256 == expected.sha256
    assert bundle.card.thresholds == expected.card.thresholds


@pytest.mark.parametrize("change", [{"workers": 2}, {"deterministic": True}], ids=["workers", "deterministic"])
def test_who_loads_the_images_and_with_which_algorithms_does_not_matter(
    manifest, uninterrupted, tmp_path, change
) -> None:
    run = TrainingRun(manifest, tmp_path, small_config(**SETTINGS, **change), "toy", tmp_path / "cache")
    assert train_bundle(run, CPU).sha256 == uninterrupted[0].sha256
    assert not torch.are_deterministic_algorithms_enabled()


def test_another_seed_gives_other_weights(manifest, uninterrupted, tmp_path) -> None:
    """Otherwise the test above would prove nothing."""
    config = small_config(**SETTINGS, seed=1)
    bundle = train_bundle(TrainingRun(manifest, tmp_path, config, "toy", tmp_path / "cache"), CPU)
    assert bundle.sha256 != uninterrupted[0].sha256
