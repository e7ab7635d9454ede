"""Settings of all property tests here."""

from __future__ import annotations

from hypothesis import settings

# What is tested are files and processes, and a busy disk takes as long as it takes.
settings.register_profile("without deadline", deadline=None)
settings.load_profile("without deadline")
