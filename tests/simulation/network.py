"""Paths: the delays of messages."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Path:
    """A one-way path between two hosts.

    Attributes:
        mean: the mean delay, seconds.
        variation: the coefficient of variation of the delays, which are lognormal.
        spikes: the share of messages that take up to ``spike`` seconds more.
        spike: the maximum additional delay, seconds.
    """

    mean: float
    variation: float = 0.3
    spikes: float = 0.0
    spike: float = 0.2

    def delay(self, dice: random.Random) -> float:
        """Draw the delay of a message, seconds."""
        sigma2 = math.log(1 + self.variation**2)
        drawn = dice.lognormvariate(math.log(self.mean) - sigma2 / 2, math.sqrt(sigma2))
        if self.spikes and dice.random() < self.spikes:
            drawn += dice.uniform(0.1, 1.0) * self.spike
        return drawn


def drawn_path(dice: random.Random, means: tuple[float, ...]) -> Path:
    """Draw a path with one of several means, with or without spikes."""
    return Path(
        mean=dice.choice(means) * dice.uniform(0.7, 1.4),
        variation=dice.choice((0.1, 0.3, 0.3, 1.0)),
        spikes=dice.choice((0.0, 0.0, 0.005)),
        spike=dice.choice((0.05, 0.2)),
    )
