"""Every endpoint has all its parts: a method, an example, the fields of its request, and a command of the emulator."""

from __future__ import annotations

import inspect

from tim_async import TIMClient
from tim_async.emulator._commands import COMMANDS  # its order is that of tables which users see
from tim_async.endpoints import ENDPOINTS, GET_GROUP_INFO

from .stand_in import FIELDS, METHODS

PATHS = [endpoint.command for endpoint in ENDPOINTS]


def test_every_method_has_an_example() -> None:
    methods = {name for name, value in vars(TIMClient).items() if inspect.iscoroutinefunction(value)}
    methods -= {"__aenter__", "__aexit__", "aclose"}
    assert {method.name for method in METHODS} == methods


def test_every_endpoint_has_an_example_and_the_fields_of_its_request() -> None:
    assert {method.path.strip("/") for method in METHODS if method.name != "call"} == {*PATHS}
    assert {path.strip("/") for path in FIELDS} >= {*PATHS}


def test_the_emulator_has_every_endpoint_in_their_order() -> None:
    assert [*COMMANDS] == [*PATHS, GET_GROUP_INFO.command]
