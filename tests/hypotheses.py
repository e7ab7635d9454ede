"""How many examples a property is tried with where each of them takes long."""

from __future__ import annotations

from hypothesis import settings


def at_most(examples: int) -> settings:
    """So many, or as few as the profile of the run asks for; a decorator, called when a test module is imported."""
    return settings(max_examples=min(examples, settings().max_examples))
