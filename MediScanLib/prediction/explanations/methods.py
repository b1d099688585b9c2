"""Names of the ways to explain an image. Light, so that a face can list them before there is a model."""

from __future__ import annotations

METHODS: tuple[str, ...] = ("gradcam", "gradcam++", "layercam", "occlusion", "integrated-gradients")
"""The first comes with every prediction; Testing/benchmarks/bench_explanations.py measures what the others cost."""
