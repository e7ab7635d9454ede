"""Fixtures of the simulation's tests."""

from __future__ import annotations

import importlib.resources

import pytest


@pytest.fixture(scope="session")
def source() -> str:
    """The script of the quota."""
    return importlib.resources.files("tim_async._limiter").joinpath("quota.lua").read_text(encoding="utf-8")
