"""The number of examples for properties whose examples are slow."""

from __future__ import annotations

from hypothesis import settings


def at_most(examples: int) -> settings:
    """Return a decorator that limits a property to so many examples, or to the profile's number if that is smaller."""
    return settings(max_examples=min(examples, settings().max_examples))
