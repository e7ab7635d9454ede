from __future__ import annotations

import json

import pytest
from click.shell_completion import ShellComplete

from tim_async._codes import DOCUMENT, RETRIED
from tim_async.cli.app import cli
from tim_async.errors import CODES

from .conftest import Run


@pytest.mark.parametrize("number", [70009, 10002, 60007, 70001])
def test_a_code_is_explained_without_credentials(run: Run, number: int) -> None:
    """Its exception, whether the call is retried, its meaning and its remedy."""
    code = CODES[number]
    result = run("explain", str(number))
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.splitlines() == [
        f"{number}  {code.kind}, {RETRIED[code.reaction]}",
        f"  {code.meaning}",
        f"  {code.remedy}",
    ]


def test_several_codes(run: Run) -> None:
    """Each once, in the order of the arguments; an unknown one is listed with a link to the vendor's list."""
    result = run("explain", "10062", "10010", "424242", "10062")
    assert result.exit_code == 1
    assert [line.split()[0] for line in result.stdout.splitlines() if line[:1].isdigit()] == ["10062", "10010"]
    assert result.stderr == f"Unknown: 424242.  See the vendor's list: {DOCUMENT}\n"


def test_as_json(run: Run) -> None:
    """One document; an unknown code is null."""
    result = run("explain", "70009", "1", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {
        "70009": {
            "exception": "AuthError",
            "reaction": "give up",
            "meaning": CODES[70009].meaning,
            "remedy": CODES[70009].remedy,
        },
        "1": None,
    }
    assert run("explain", "70009", "--json").exit_code == 0


@pytest.mark.parametrize("words", [[], ["seven"]])
def test_invalid_codes(run: Run, words: list[str]) -> None:
    """A usage error."""
    assert run("explain", *words).exit_code == 2


def test_codes_are_completed() -> None:
    """A prefix completes to the known codes, with their meanings."""
    completer = ShellComplete(cli, {}, "tim-async", "_TIM_ASYNC_COMPLETE")
    found = {item.value: item.help for item in completer.get_completions(["explain"], "1006")}
    assert found == {str(number): CODES[number].meaning for number in (10060, 10061, 10062)}
