"""Two processes that torchrun starts compute the gradient of one process on the joined batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_manifest import small_config, write_boxes, write_manifest

from MediScanLib.config import Config
from MediScanLib.errors import UsageError
from MediScanLib.network.bundle import load_bundle
from MediScanLib.training.checkpoint import load_checkpoint
from MediScanLib.training.processes import Processes, joined
from MediScanLib.training.recipe import TrainingRun, train_bundle
from MediScanLib.training.regions import MarkFiles
from MediScanLib.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[2]

CHILD = """
import sys
from pathlib import Path
import torch
from MediScanLib.commands.train import train
from MediScanLib.training.trainer import Trainer

step, folder = Trainer._step, Path(sys.argv.pop(1))

def keep(self):
    file = folder / f"gradient-{self._processes.rank}.pt"
    if not file.exists():
        torch.save({name: p.grad for name, p in self.network.named_parameters()}, file)
    step(self)

Trainer._step = keep
train()
"""


def config() -> Config:
    """Without anything that a network draws inside a process: dropout masks differ between processes."""
    settings = small_config(
        input_size=64,
        batch_size=8,
        epochs=1,
        frozen_epochs=0,
        batch_norm="frozen",
        image_dropout=0.3,
        location_weight=0.3,
    )
    return settings.model_copy(update={"model": settings.model.model_copy(update={"dropout_rate": 0.0})})


@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch was built without distributed")
def test_two_processes_equal_one(tmp_path) -> None:
    manifest = write_manifest(tmp_path / "data", {"train": 16, "val": 9})  # an odd number to share out
    boxes = write_boxes(manifest)
    alone: list = []
    with pytest.MonkeyPatch.context() as patch:
        step = Trainer._step

        def keep(self) -> None:
            alone.append({name: p.grad.clone() for name, p in self.network.named_parameters()})
            step(self)

        patch.setattr(Trainer, "_step", keep)
        single = TrainingRun(
            manifest, tmp_path / "single", config(), "toy", tmp_path / "cache", marks=MarkFiles(boxes)
        )
        train_bundle(single, torch.device("cpu"))

    (tmp_path / "child.py").write_text(CHILD, encoding="utf-8")
    settings = config().model_dump()
    settings["training"]["accumulation_steps"] = 2  # each process sees its share in two parts
    (tmp_path / "config.yaml").write_text(Config.model_validate(settings).model_dump_json(), encoding="utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [str(tmp_path / "child.py"), str(tmp_path), "--distributed", "--device", "cpu"]
    command += ["--boxes", str(boxes)]
    command += ["--data", str(manifest), "--config", str(tmp_path / "config.yaml")]
    command += ["--output", str(tmp_path / "two"), "--cache", str(tmp_path / "cache"), "--name", "toy"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr

    for rank in (0, 1):
        shared = torch.load(tmp_path / f"gradient-{rank}.pt", weights_only=True)
        assert any(float(gradient.abs().max()) > 1e-3 for gradient in shared.values())
        for name, gradient in alone[0].items():
            torch.testing.assert_close(shared[name], gradient, rtol=1e-3, atol=1e-5, msg=f"rank {rank}, {name}")
    assert done.stderr.count("epoch 1: train") == 1, "only the first process talks"
    assert load_bundle(tmp_path / "two" / "toy").card.recipe["epochs"] == 1
    first, second = (load_checkpoint(tmp_path / name / "last.pt")["history"][0] for name in ("single", "two"))
    for name in ("train_total", "train_image", "train_clinical", "train_divergence", "train_location"):
        assert second[name] == pytest.approx(first[name], rel=0.02), name


def test_without_torchrun_it_says_how_to_start(monkeypatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UsageError, match=r"torchrun --standalone --nproc-per-node"), joined("cpu"):
        pass


def test_one_process_gathers_itself() -> None:
    assert Processes().gather("x") == ["x"]
    assert Processes().is_first
    assert not Processes(rank=1, count=2).is_first
