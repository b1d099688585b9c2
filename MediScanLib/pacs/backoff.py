"""How long to wait before something is tried again."""

from __future__ import annotations

import random

MOST_WAIT_S = 7 * 86400.0
"""No wait is longer. What is due later than that was put there before the clock was set back, and is due now."""

_random = random.SystemRandom()


def wait_s(attempt: int, first_s: float, most_s: float) -> float:
    """Twice as long after each attempt, and between half and all of that, so that many do not come at once.

    Args:
        attempt: How often it was tried, 1 at least.
        first_s: Wait after the first.
        most_s: Longest wait.
    """
    whole = min(most_s, first_s * 2.0 ** min(attempt - 1, 60))
    return whole * _random.uniform(0.5, 1.0)
