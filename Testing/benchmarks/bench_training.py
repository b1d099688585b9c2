"""What a training step of the encoder costs on this CPU, and what each measure against it saves.

Run: python Testing/benchmarks/bench_training.py [--output FILE.md] [--rounds N]

Each row is a process of its own, because memory settings cannot be taken back; rows take turns, and the table holds
the median over the rounds of a row's step divided by the first row's in the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from MediScanLib.network.encoders import build_encoder
from MediScanLib.training.allocator import keep_freed_memory
from MediScanLib.training.optimization import freeze
from MediScanLib.training.trainer import half_precision

BACKBONE = "efficientnet-lite0"
BATCH = 32
STEPS = 3


class Row(NamedTuple):
    """What is switched on."""

    name: str
    keep_memory: bool = False
    joined_norms: bool = False
    half: bool = False
    frozen_depthwise: bool = False
    frozen_stride: int = 0


ROWS = (
    Row("plain"),
    Row("freed memory kept", keep_memory=True),
    Row("and norms multiplied into the kernels", keep_memory=True, joined_norms=True),
    Row("and bfloat16 where the CPU has AMX", keep_memory=True, joined_norms=True, half=True),
    Row("and depthwise kernels frozen", keep_memory=True, joined_norms=True, half=True, frozen_depthwise=True),
    Row(
        "and all of stride 2 and 4 frozen",
        keep_memory=True,
        joined_norms=True,
        half=True,
        frozen_depthwise=True,
        frozen_stride=4,
    ),
)


def step_seconds(row: Row, size: int) -> float:
    """Shortest of a few steps: forward and backward of one batch through the encoder."""
    if row.keep_memory:
        keep_freed_memory()
    encoder = build_encoder(BACKBONE).to(memory_format=torch.channels_last).eval()
    freeze(encoder, row.frozen_stride, depthwise=row.frozen_depthwise)
    if not row.joined_norms:
        for block in [module for module in encoder.modules() if hasattr(module, "norm")]:
            block.forward = lambda x, block=block: nn.Sequential.forward(block, x)
    half = half_precision(torch.device("cpu")) if row.half else None
    images = torch.randn(BATCH, 1, size, size).contiguous(memory_format=torch.channels_last)
    seconds = []
    for _ in range(STEPS + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", half) if half else contextlib.nullcontext():
            features = encoder(images)
        features.float().mean((2, 3)).square().mean().backward()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file for the table (Markdown)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=[224, 320])
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row is not None:
        print(step_seconds(ROWS[arguments.row], arguments.sizes[0]))
        return
    ratios: dict[tuple[int, int], list[float]] = {}
    for size in arguments.sizes:
        for _ in range(arguments.rounds):
            seconds = [_in_a_process(number, size) for number in range(len(ROWS))]
            for number, value in enumerate(seconds):
                ratios.setdefault((number, size), []).append(value / seconds[0])
    lines = [
        f"A training step of {BACKBONE}, batch {BATCH}, forward and backward, as a multiple of torch's own settings. "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {platform.machine()}, "
        f"AMX: {'yes' if half_precision(torch.device('cpu')) else 'no'}. Median of {arguments.rounds} rounds.",
        "",
        "| with | " + " | ".join(f"{size} pixels" for size in arguments.sizes) + " |",
        "| --- |" + " --- |" * len(arguments.sizes),
    ]
    for number, row in enumerate(ROWS):
        cells = [f"{statistics.median(ratios[number, size]):.2f}" for size in arguments.sizes]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    print("\n".join(lines))
    if arguments.output:
        arguments.output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _in_a_process(number: int, size: int) -> float:
    command = [sys.executable, __file__, "--row", str(number), "--sizes", str(size)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(answer.stdout.split()[-1])


if __name__ == "__main__":
    main()
