"""Studies per minute through a real archive and back, beside the bare predictor's rate in the same run.

Orthanc sends single radiographs to `mediscan listen` by C-STORE, and gets report, segmentation and secondary captures
back. The bare predictor reads and predicts the same files, one after another, and writes nothing; beside it the same
with the DICOM objects made and written, as `mediscan predict --dicom-output` does.

python Testing/benchmarks/bench_pacs.py --output Testing/output/benchmark-pacs.md
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from orthanc import Orthanc, orthanc_program
from serving import free_port

from dicom_files import write_study
from MediScanLib.pacs.queue import Queue
from MediScanLib.prediction.predictor import Predictor
from MediScanLib.report.dicom.writing import write_dicom_results
from MediScanLib.study.phantom import make_phantom
from MediScanLib.study.reading import read_image

RADIOGRAPHS = Path(__file__).resolve().parents[3] / "shared/data/images/nih"


def pictures(count: int) -> list[np.ndarray]:
    """Real radiographs where the shared data is there, and the phantom otherwise; (row, column) uint8."""
    found = sorted(RADIOGRAPHS.glob("*.jpg"))[:count]
    if found:
        return [np.asarray(Image.open(path).convert("L")) for path in found]
    phantom = make_phantom().pixels[0]
    return [np.clip(phantom / phantom.max() * 255, 0, 255).astype(np.uint8)]


def write_studies(folder: Path, count: int, run: int) -> list[Path]:
    """One radiograph a study, each other than all before."""
    shown = pictures(count)
    files = []
    for number in range(count):
        pixels = shown[number % len(shown)].copy()
        pixels[0, 0] = number % 251
        root = f"1.2.826.0.1.3680043.8.498.90.{os.getpid()}.{run}.{number}"
        files.append(
            write_study(
                folder / f"{run}-{number}.dcm",
                pixels,
                StudyInstanceUID=f"{root}.1",
                SeriesInstanceUID=f"{root}.2",
                SOPInstanceUID=f"{root}.3",
            )
        )
    return files


def bare_rate(predictor: Predictor, files: list[Path], results: Path | None = None) -> float:
    """Studies per minute, one after another, with all threads; with results where there is a folder for them."""
    started = time.perf_counter()
    for path in files:
        image = read_image(path)
        prediction = predictor(image)
        if results is not None:
            write_dicom_results(prediction, prediction.maps, [path], results / path.stem, image=image)
    return 60 * len(files) / (time.perf_counter() - started)


def through_rate(archive: Orthanc, queue: Queue, files: list[Path]) -> tuple[float, int]:
    """Studies per minute from the first one sent to the last result stored, and how many results are missing."""
    studies = [archive.upload(path) for path in files]
    done = queue.counts().items.get("done", 0)
    started = time.perf_counter()
    archive.client.post("/modalities/mediscan/store", json={"Resources": studies, "Asynchronous": True})
    while queue.counts().items.get("done", 0) < done + len(files) and time.perf_counter() - started < 600:
        time.sleep(0.1)
    rate = 60 * len(files) / (time.perf_counter() - started)
    lost = sum("SR" not in archive.modalities(study) for study in studies)
    return rate, lost


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file for the table (Markdown)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--studies", type=int, default=120)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    if orthanc_program() is None:
        print("Orthanc with its DICOMweb plug-in is not installed: nothing was measured.")
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        port = free_port()
        archive = Orthanc(folder / "orthanc", {"mediscan": ("MEDISCAN", port)}).start()
        settings = {
            "folder": str(folder / "node"),
            "listen": {"port": port},
            "study": {"quiet_s": 1},
            "predict": {"device": "cpu", "workers": arguments.workers},
            "destinations": {
                "archive": {
                    "kind": "c-store",
                    "host": "127.0.0.1",
                    "port": archive.dicom_port,
                    "ae_title": "ARCHIVE",
                }
            },
            "rules": [{"name": "all", "send_to": "archive"}],
        }
        (folder / "node.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
        with (folder / "node.log").open("wb") as log:
            command = [sys.executable, "-m", "MediScanLib.cli", "listen", "--config", str(folder / "node.yaml")]
            node = subprocess.Popen(command, stdout=log, stderr=log, cwd=Path(__file__).resolve().parents[2])
        try:
            while b"listens on" not in (folder / "node.log").read_bytes():
                time.sleep(0.2)
            lines = measure(archive, Queue(folder / "node"), folder, arguments)
        finally:
            node.terminate()
            node.wait(60)
            archive.kill()
    print("\n".join(lines))
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def measure(archive: Orthanc, queue: Queue, folder: Path, arguments: argparse.Namespace) -> list[str]:
    """The table, line by line."""
    predictor = Predictor.load(device="cpu")
    warming = write_studies(folder / "in", 2 * arguments.workers, 0)
    bare_rate(predictor, warming)
    through_rate(archive, queue, warming)
    ratios, with_results, bares, writings, throughs, lost = [], [], [], [], [], 0
    for number in range(1, arguments.rounds + 1):
        files = write_studies(folder / "in", arguments.studies, number)
        before = bare_rate(predictor, files[: max(1, len(files) // 2)])
        through, missing = through_rate(archive, queue, files)
        after = bare_rate(predictor, files[len(files) // 2 :])
        writings.append(bare_rate(predictor, files[: max(1, len(files) // 2)], folder / "results"))
        with_results.append(through / writings[-1])
        bares += [before, after]
        throughs.append(through)
        lost += missing
        ratios.append(2 * through / (before + after))
    return [
        f"Orthanc -> mediscan listen -> results back in Orthanc, {arguments.studies} single radiographs a round, "
        f"{arguments.rounds} rounds, mediscan-general, {arguments.workers} workers on {os.cpu_count()} cores, torch "
        f"{torch.__version__}, {platform.machine()}; the bare predictor ran before and after each round, with "
        f"{torch.get_num_threads()} threads.",
        "",
        "| | studies per minute | share of the bare predictor | share of it with its results |",
        "| --- | --- | --- | --- |",
        f"| bare predictor: read and predict | {statistics.median(bares):.0f} | 1 | |",
        f"| the same, and make and write the DICOM objects | {statistics.median(writings):.0f} | "
        f"{statistics.median(writings) / statistics.median(bares):.2f} | 1 |",
        f"| through the archive and back | {statistics.median(throughs):.0f} | {statistics.median(ratios):.2f} | "
        f"{statistics.median(with_results):.2f} |",
        "",
        f"Lost: {lost} of {arguments.rounds * arguments.studies}.",
    ]


if __name__ == "__main__":
    main()
