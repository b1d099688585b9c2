"""Requests per second and waiting times of `mediscan serve`, beside the bare model's throughput in the same run.

Two servers are started as an operator starts them, one that puts waiting images together into one pass and one that
does not. A load generator in a process of its own sends single radiographs with a clinical record over loopback: each
client sends the next one once it has its answer. The bare model runs in a process of its own before and after: read
and predict, one file after another, as a script would do it, and the network alone on prepared images. Only one of
all these works at a time; server and load generator share the processors.

python Testing/benchmarks/bench_load.py --output Testing/output/benchmark-load.md
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("MEDISCAN_DATA", ROOT.parent / "shared" / "data"))
CLINICAL = {"age_years": 63, "sex": "F", "temperature_c": 38.4, "spo2_percent": 91, "crp_mg_per_l": 88}
BATCH = 8
CLIENTS = (1, 4, 16)
WARM_S = 1.0
"""Answers that come so soon after the start are not counted."""


def write_images(folder: Path, count: int = 16) -> None:
    """Half PNG, half DICOM: real radiographs where the data is there, and variations of the phantom otherwise."""
    from dicom_files import write_study
    from MediScanLib.study.phantom import make_phantom

    shown = [np.asarray(Image.open(path).convert("L")) for path in sorted((DATA / "images/nih").glob("*.jpg"))[:count]]
    if not shown:
        phantom = make_phantom().pixels[0]
        shown = [np.clip(phantom / phantom.max() * (200 + 3 * n), 0, 255).astype(np.uint8) for n in range(count)]
    for number, pixels in enumerate(shown):
        if number % 2:
            root = f"1.2.826.0.1.3680043.8.498.91.{number}"
            uids = {"StudyInstanceUID": f"{root}.1", "SeriesInstanceUID": f"{root}.2", "SOPInstanceUID": f"{root}.3"}
            write_study(folder / f"{number:02}.dcm", pixels, **uids)
        else:
            Image.fromarray(pixels).save(folder / f"{number:02}.png")


def bare(files: list[Path]) -> None:
    """Answer each line of standard input, a number of seconds, with images per second of each kind as JSON."""
    import torch

    from MediScanLib.prediction.predictor import Predictor
    from MediScanLib.prediction.preprocessing import prepare_clinical, prepare_slices
    from MediScanLib.server.memory import keep_freed_memory
    from MediScanLib.study.reading import read_image
    from MediScanLib.study.record import ClinicalRecord

    keep_freed_memory()  # as the server does
    predictor = Predictor.load(device="cpu")
    card, record = predictor.bundle.card, ClinicalRecord(**CLINICAL)
    values, known = prepare_clinical([record] * BATCH, card)
    tensors = torch.cat([prepare_slices(read_image(path), card.input, (0,)).tensor for path in files])

    def chosen(number: int, count: int) -> list[int]:
        return [(number + offset) % len(files) for offset in range(count)]

    def one(number: int) -> object:
        return predictor(read_image(files[number % len(files)]), record)

    def together(number: int) -> object:
        return predictor.predict_batch([(read_image(files[index]), record) for index in chosen(number, BATCH)])

    def network(number: int, count: int) -> object:
        with torch.inference_mode():
            return predictor.network(tensors[chosen(number, count)], values[:count], known[:count])

    kinds: dict[str, tuple[Callable[[int], object], int]] = {
        "one": (one, 1),
        "together": (together, BATCH),
        "network one": (lambda number: network(number, 1), 1),
        "network together": (lambda number: network(number, BATCH), BATCH),
    }

    def rate(work: Callable[[int], object], each: int, seconds: float) -> float:
        done, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds:
            work(done)
            done += each
        return done / passed

    for line in sys.stdin:
        share = float(line) / len(kinds)
        rates = {}
        for name, (work, each) in kinds.items():
            rate(work, each, min(WARM_S, share))
            rates[name] = rate(work, each, share)
        print(json.dumps({"threads": torch.get_num_threads(), "torch": torch.__version__, "rates": rates}), flush=True)


async def load(url: str, files: list[Path], clients: int, seconds: float) -> dict[str, Any]:
    """Send until the time is over, and wait for what is still to come.

    Returns:
        times: Seconds that each answer of the counted time took. refused: 429. failed: Answers that say something
        went wrong. lost: Requests without any answer.
    """
    bodies = [(path.name, path.read_bytes()) for path in files]
    times: list[float] = []
    counts = {"sent": 0, "refused": 0, "failed": 0, "lost": 0}
    begin = time.perf_counter() + WARM_S
    end = begin + seconds

    async def client(number: int, http: httpx.AsyncClient) -> None:
        while (started := time.perf_counter()) < end:
            body = bodies[number % len(bodies)]
            number += clients
            counts["sent"] += 1
            try:
                answer = await http.post(
                    f"{url}/v1/predict", files={"files": body}, data={"clinical": json.dumps(CLINICAL)}
                )
            except httpx.HTTPError:
                counts["lost"] += 1
                continue
            now = time.perf_counter()
            if answer.status_code == 429:
                counts["refused"] += 1
                await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))
            elif answer.status_code != 200 or not answer.json()["findings"]:
                counts["failed"] += 1
            elif begin <= now <= end:
                times.append(now - started)

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=120, limits=limits, trust_env=False) as http:
        await asyncio.gather(*(client(number, http) for number in range(clients)))
    return {"times": times, "rate": len(times) / seconds, **counts}


class Bare:
    """The process of `bare`."""

    def __init__(self, images: Path) -> None:
        command = [sys.executable, __file__, "--bare", "--images", str(images)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def __call__(self, seconds: float) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{seconds}\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def close(self) -> None:
        """End it."""
        self._process.communicate(timeout=60)


class Server:
    """`mediscan serve` with its defaults on a port of its own, but for the size of a batch and the rate limit."""

    def __init__(self, folder: Path, batch: int) -> None:
        from serving import free_port

        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "MediScanLib.cli", "serve", "--folder", str(folder), "--port", str(port)]
        command += ["--max-batch-size", str(batch), "--rate", "0", "--device", "cpu"]
        log = folder.parent / f"{folder.name}.log"
        with log.open("wb") as stream:
            self._process = subprocess.Popen(command, stdout=stream, stderr=stream, cwd=ROOT)
        for _ in range(600):
            try:
                if httpx.get(f"{self.url}/v1/ready", timeout=5, trust_env=False).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        self.close()
        raise RuntimeError(f"the server does not get ready: {log.read_text(encoding='utf-8')[-2000:]}")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(60)


def sent(server: Server, images: Path, clients: int, seconds: float) -> dict[str, Any]:
    """What `load` says in a process of its own."""
    command = [sys.executable, __file__, "--load", server.url, str(clients), "--images", str(images)]
    command += ["--seconds", str(seconds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True, cwd=ROOT)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def measure(folder: Path, seconds: float, rounds: int) -> list[str]:
    """The tables, line by line. Every other round goes backwards, so that the order does not matter."""
    images = folder / "images"
    images.mkdir()
    write_images(images)
    alone = Bare(images)
    servers: dict[int, Server] = {}
    bares: list[dict[str, Any]] = []
    found: dict[tuple[int, int], list[dict[str, Any]]] = {}
    try:
        for batch in (BATCH, 1):
            servers[batch] = Server(folder / f"server-{batch}", batch)
            sent(servers[batch], images, CLIENTS[-1], min(10.0, seconds))  # wakes everything
        alone(min(10.0, seconds))
        for number in range(rounds):
            bares.append(alone(seconds))
            for batch in (BATCH, 1)[:: 1 - 2 * (number % 2)]:
                for clients in CLIENTS[:: 1 - 2 * (number % 2)]:
                    found.setdefault((batch, clients), []).append(sent(servers[batch], images, clients, seconds))
                bares.append(alone(seconds))
    finally:
        for server in servers.values():
            server.close()
        alone.close()
    return said(bares, found, seconds, rounds)


def said(
    bares: list[dict[str, Any]], found: dict[tuple[int, int], list[dict[str, Any]]], seconds: float, rounds: int
) -> list[str]:
    """Rates are medians of all runs of a kind; waiting times are those of all their answers."""
    rates = {kind: statistics.median(run["rates"][kind] for run in bares) for kind in bares[0]["rates"]}
    one = rates["one"]
    lines = [
        f"Single radiographs over loopback, mediscan-general, one worker on {os.cpu_count()} cores with "
        f"{bares[0]['threads']} threads, torch {bares[0]['torch']}, {platform.machine()}; median of {rounds} runs of "
        f"{seconds:g} s a setting, the bare model {len(bares)} times between them.",
        "",
        "| bare model, in one process | images/s |",
        "| --- | --- |",
        f"| read and predict, one by one | {one:.1f} |",
        f"| read and predict, {BATCH} at a time | {rates['together']:.1f} |",
        f"| the network alone, one by one | {rates['network one']:.1f} |",
        f"| the network alone, {BATCH} at a time | {rates['network together']:.1f} |",
        "",
        f"| micro-batching | clients | requests/s | share of read and predict, one by one | {BATCH} at a time | "
        "p50 | p95 | p99 | refused (429) | failed | lost |",
        "| " + " | ".join(["---"] * 11) + " |",
    ]
    for (batch, clients), runs in sorted(found.items(), key=lambda item: (-item[0][0], item[0][1])):
        rate = statistics.median(run["rate"] for run in runs)
        times = [took for run in runs for took in run["times"]]
        waits = " | ".join(f"{1000 * np.percentile(times, share):.0f} ms" if times else "-" for share in (50, 95, 99))
        counts = " | ".join(str(sum(run[kind] for run in runs)) for kind in ("refused", "failed", "lost"))
        lines.append(
            f"| {'up to ' + str(batch) if batch > 1 else 'off'} | {clients} | {rate:.1f} | {rate / one:.2f} | "
            f"{rate / rates['together']:.2f} | {waits} | {counts} |"
        )
    total = sum(run["sent"] for runs in found.values() for run in runs)
    return [*lines, "", f"Sent: {total} requests."]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file for the tables (Markdown)")
    parser.add_argument("--seconds", type=float, default=20, help="for each setting in each round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--load", nargs=2, metavar=("URL", "CLIENTS"), help=argparse.SUPPRESS)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.bare:
        bare(sorted(arguments.images.iterdir()))
        return
    if arguments.load:
        url, clients = arguments.load
        files = sorted(arguments.images.iterdir())
        print(json.dumps(asyncio.run(load(url, files, int(clients), arguments.seconds))))
        return
    sys.path.insert(0, str(ROOT / "Testing"))
    with tempfile.TemporaryDirectory() as name:
        lines = measure(Path(name), arguments.seconds, arguments.rounds)
    print("\n".join(lines))
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
