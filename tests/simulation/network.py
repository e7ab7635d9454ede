"""Paths: how long a message takes, and whether it arrives."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Path:
    """One way between two hosts.

    Attributes:
        mean: seconds.
        variation: coefficient of variation; the delays are lognormal.
        spikes: the share of messages that take up to ``spike`` seconds more.
        spike: seconds.
    """

    mean: float
    variation: float = 0.3
    spikes: float = 0.0
    spike: float = 0.2

    def delay(self, dice: random.Random) -> float:
        """Draw the seconds that a message takes."""
        sigma2 = math.log(1 + self.variation**2)
        drawn = dice.lognormvariate(math.log(self.mean) - sigma2 / 2, math.sqrt(sigma2))
        if self.spikes and dice.random() < self.spikes:
            drawn += dice.uniform(0.1, 1.0) * self.spike
        return drawn


def drawn_path(dice: random.Random, means: tuple[float, ...]) -> Path:
    """A path of one of some means, calm or not."""
    return Path(
        mean=dice.choice(means) * dice.uniform(0.7, 1.4),
        variation=dice.choice((0.1, 0.3, 0.3, 1.0)),
        spikes=dice.choice((0.0, 0.0, 0.005)),
        spike=dice.choice((0.05, 0.2)),
    )
