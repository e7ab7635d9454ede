"""Requests of SDKs in other languages, answered as the vendor documents, by a strict and by a lenient emulator.

``recorded/*.json`` has the requests, from the SDKs' sources: path, names and order of the query, headers, body.
``answer`` is a part of the answer by default; ``lenient`` that of an emulator with ``integer_read_time=True``, where it
differs; ``refused`` the code with ``refuse_unknown_fields=True``; ``unknown`` the fields that the report counts;
``unread`` alice's unread messages afterwards; ``wrong`` the request's deviation from the documents.
"""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

import tim_async.emulator
from tim_async.emulator import DEFAULT_SDK_APP_ID, Emulator, fill_example

from .support import Clock, usersig

FILES = sorted((Path(__file__).parent / "recorded").glob("*.json"))
MODES: dict[str, dict[str, Any]] = {
    "default": {},
    "lenient": {"integer_read_time": True},
    "refusing": {"refuse_unknown_fields": True},
}


def send(service: Emulator, recorded: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    """Send a request as the SDK does, and read the answer."""
    values = {
        "sdkappid": str(DEFAULT_SDK_APP_ID),
        "identifier": "administrator",
        "usersig": usersig(),
        "random": recorded["random"],
        "contenttype": "json",
    }
    given = {name: quote(values[name], safe="" if recorded["escaped"] else "*-_") for name in recorded["query"]}
    url = f"{request['path']}?{'&'.join(f'{name}={value}' for name, value in given.items())}"
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=60)
    connection.putrequest("POST", url, skip_accept_encoding=True)
    body = json.dumps(request["body"]).encode()
    for name, value in {**recorded["headers"], "Content-Length": str(len(body))}.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    response = connection.getresponse()
    assert (response.status, response.headers["Content-Encoding"]) == (200, None)
    answer: dict[str, Any] = json.loads(response.read())
    connection.close()
    return answer


def holds(answer: Any, part: Any) -> bool:
    """Whether an answer contains a part: some fields of an object, or all items of an array in any order."""
    if isinstance(part, dict):
        return isinstance(answer, dict) and all(name in answer and holds(answer[name], part[name]) for name in part)
    if isinstance(part, list):
        left = list(answer) if isinstance(answer, list) else []
        for item in part:
            found = next((other for other in left if holds(other, item)), None)
            if found is None:
                return False
            left.remove(found)
        return not left
    return type(answer) is type(part) and bool(answer == part)


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
@pytest.mark.parametrize("mode", MODES)
def test_requests_of_an_sdk_are_answered_as_documented(file: Path, mode: str) -> None:
    recorded = json.loads(file.read_text(encoding="utf-8"))
    for request in recorded["requests"]:
        expected = request["answer"]
        if mode == "lenient":
            expected = request.get("lenient", expected)
        elif mode == "refusing" and "refused" in request:
            expected = {"ErrorCode": request["refused"]}
        with Emulator(clock=Clock(), **MODES[mode]) as service:
            fill_example(service.state)
            answer = send(service, recorded, request)
            assert holds(answer, expected), (request["call"], answer)
            report = service.report()
        assert report.total.unknown_fields == dict.fromkeys(request.get("unknown", ()), 1), request["call"]
        if expected["ErrorCode"] == 60008:
            assert list(report.endpoints) == [request["path"].lstrip("/")]
        if "unread" in request and expected["ErrorCode"] == 0:
            assert service.state.unread("alice") == request["unread"]


def test_each_wrong_request_has_a_reason() -> None:
    """Each SDK also has a correct request, and a recipe in the guide."""
    assert len(FILES) >= 5
    guide = (Path(tim_async.emulator.__file__).parent / "README.md").read_text(encoding="utf-8")
    for file in FILES:
        recorded = json.loads(file.read_text(encoding="utf-8"))
        assert f"| [{recorded['sdk']}](https://" in guide
        requests = recorded["requests"]
        assert any(request["answer"]["ErrorCode"] == 0 and "wrong" not in request for request in requests)
        for request in requests:
            doubtful = request["answer"]["ErrorCode"] or request.get("unknown")
            assert bool(doubtful) == ("wrong" in request), request["call"]
