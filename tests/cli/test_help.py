from __future__ import annotations

import click
import pytest

from tim_async import __version__
from tim_async.cli.app import cli

from .conftest import Run

COMMANDS = sorted(cli.commands)


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS), ["migrate", "unread"]], ids=" ".join)
def test_version(run: Run, words: list[str]) -> None:
    assert run(*words, "--version").stdout == f"tim-async {__version__}\n"


def test_the_help_of_all(run: Run) -> None:
    """It names every command, shows examples, the exit codes and where credentials come from."""
    text = run("--help").stdout
    assert all(f"  {name} " in text for name in COMMANDS)
    assert "Examples:\n    tim-async demo\n" in text
    assert all(f"  {code} " in text for code in (0, 1, 2, 3, 130))
    for name in ("SDK_APP_ID", "SECRET_KEY", "SECRET_KEY_FILE", "IDENTIFIER", "REGION", "BASE_URL", "CREDENTIALS"):
        assert f"TIM_{name}" in text
    assert "..." not in text.split("Commands:")[1].split("Examples:")[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command(run: Run, name: str) -> None:
    """It shows examples, and each of them is one that the command takes."""
    text = run(name, "--help").stdout
    examples = [line.strip() for line in text.split("Examples:\n")[1].splitlines()]
    assert len(examples) >= 2
    for example in examples:
        words = example.partition(" | ")[0].split()
        assert words[:2] == ["tim-async", name]
        cli.commands[name].make_context(name, words[2:])


@pytest.mark.parametrize("name", COMMANDS)
def test_no_flag_takes_a_secret(name: str) -> None:
    """Flags are in every process list and in the shell's history.

    Those of the emulator are the key of an app that is not real, and the name of a file.
    """
    options = {option for parameter in cli.commands[name].params for option in parameter.opts}
    found = {option for option in options if "key" in option or "secret" in option or "usersig" in option}
    assert found == ({"--secret-key", "--tls-key"} if name == "emulator" else set())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_help(name: str) -> None:
    for parameter in cli.commands[name].params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, parameter.name
            assert parameter.help.endswith(".") or parameter.help.endswith("]"), parameter.name
