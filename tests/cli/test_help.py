from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from tim_async import __version__
from tim_async.cli.app import cli

from .conftest import Run

COMMANDS = sorted(cli.commands)


def options_of(kind: type[object], command: click.Command = cli, *words: str) -> Iterator[tuple[str, ...]]:
    """Yield each option of a type in all commands, as a command line without the value."""
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        assert inner.name is not None
        yield from options_of(kind, inner, *words, inner.name)
    for parameter in command.params:
        if isinstance(parameter.type, kind):
            yield *words, *([parameter.opts[0]] if isinstance(parameter, click.Option) else [])


@pytest.mark.parametrize("words", [[], *([name] for name in COMMANDS), ["migrate", "unread"]], ids=" ".join)
def test_version(run: Run, words: list[str]) -> None:
    assert run(*words, "--version").stdout == f"tim-async {__version__}\n"


def test_the_help_of_all(run: Run) -> None:
    """It has every command, examples, the exit codes and the sources of credentials."""
    text = run("--help").stdout
    assert all(f"  {name} " in text for name in COMMANDS)
    assert "Examples:\n    tim-async demo\n" in text
    assert all(f"  {code} " in text for code in (0, 1, 2, 3, 130))
    for name in ("SDK_APP_ID", "SECRET_KEY", "SECRET_KEY_FILE", "IDENTIFIER", "REGION", "BASE_URL", "CREDENTIALS"):
        assert f"TIM_{name}" in text
    assert "..." not in text.split("Commands:")[1].split("Examples:")[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command(run: Run, name: str) -> None:
    """It has examples, and the command accepts each of them."""
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


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize("words", [*options_of(click.types.FloatParamType)], ids=" ".join)
def test_a_number_that_is_not_finite_is_a_usage_error(run: Run, words: tuple[str, ...], number: str) -> None:
    result = run(*words, number)
    assert result.exit_code == 2
    assert "Invalid value for" in result.stderr


@pytest.mark.parametrize("words", [*options_of(click.Path)], ids=" ".join)
def test_an_empty_path_is_a_usage_error(run: Run, words: tuple[str, ...]) -> None:
    """Such as the value of an unset variable, for which pathlib would take the current folder."""
    result = run(*words, "")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(": it is empty.\n")
