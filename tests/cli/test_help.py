from __future__ import annotations

import shlex
from collections.abc import Iterator

import click
import pytest

from tim_async import __version__
from tim_async.cli.app import cli

from .conftest import Run


def commands_of(group: click.Group, *words: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield the commands of a group and of its subgroups, each with its words."""
    for name, command in sorted(group.commands.items()):
        yield (*words, name), command
        if isinstance(command, click.Group):
            yield from commands_of(command, *words, name)


COMMANDS = dict(commands_of(cli))


def parameters_of(kind: type[object]) -> list[tuple[str, ...]]:
    """Return each parameter of a type in all commands, as a command line without the value."""
    return [
        (*words, parameter.opts[0]) if isinstance(parameter, click.Option) else words
        for words, command in COMMANDS.items()
        for parameter in command.params
        if isinstance(parameter.type, kind)
    ]


@pytest.mark.parametrize("words", [(), *COMMANDS], ids=" ".join)
def test_version(run: Run, words: tuple[str, ...]) -> None:
    assert run(*words, "--version").stdout == f"tim-async {__version__}\n"


def test_the_help_of_all(run: Run) -> None:
    """It has every command, examples, the exit codes and the sources of credentials."""
    text = run("--help").stdout
    assert all(f"  {name} " in text for name in cli.commands)
    assert "Examples:\n    tim-async demo\n" in text
    assert all(f"  {code} " in text for code in (0, 1, 2, 3, 130))
    for name in ("SDK_APP_ID", "SECRET_KEY", "SECRET_KEY_FILE", "IDENTIFIER", "REGION", "BASE_URL", "CREDENTIALS"):
        assert f"TIM_{name}" in text
    assert "..." not in text.split("Commands:")[1].split("Examples:")[0]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_help_of_a_command(run: Run, words: tuple[str, ...]) -> None:
    """It has examples, and the command accepts each of them."""
    text = run(*words, "--help").stdout
    examples = [line.strip() for line in text.split("Examples:\n")[1].split("\n\n")[0].splitlines()]
    assert len(examples) >= 2
    for example in examples:
        (part,) = [part for part in example.split(" | ") if part.startswith("tim-async ")]
        name, *given = shlex.split(part)
        assert (name, tuple(given[: len(words)])) == ("tim-async", words)
        COMMANDS[words].make_context(words[-1], given[len(words) :])


@pytest.mark.parametrize("name", ["unread", "read"])
def test_the_help_of_a_migration_lists_the_exit_codes(run: Run, name: str) -> None:
    text = run("migrate", name, "--help").stdout.split("Exit codes:\n")[1]
    assert [line.split()[0] for line in text.splitlines()[:6]] == ["0", "1", "2", "3", "4", "130"]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_no_flag_takes_a_secret(words: tuple[str, ...]) -> None:
    """Flags are in every process list and in the shell's history.

    Those of the emulator are the key of an app that is not real, and the name of a file.
    """
    options = {option for parameter in COMMANDS[words].params for option in parameter.opts}
    found = {option for option in options if "key" in option or "secret" in option or "usersig" in option}
    assert found == ({"--secret-key", "--tls-key"} if words == ("emulator",) else set())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_option_has_a_help(words: tuple[str, ...]) -> None:
    for parameter in COMMANDS[words].params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, parameter.name
            assert parameter.help.endswith((".", "]")), parameter.name


@pytest.mark.parametrize("number", ["nan", "inf"])
@pytest.mark.parametrize("words", parameters_of(click.types.FloatParamType), ids=" ".join)
def test_a_number_that_is_not_finite_is_a_usage_error(run: Run, words: tuple[str, ...], number: str) -> None:
    result = run(*words, number)
    assert result.exit_code == 2
    assert "Invalid value for" in result.stderr


@pytest.mark.parametrize("words", parameters_of(click.Path), ids=" ".join)
def test_an_empty_path_is_a_usage_error(run: Run, words: tuple[str, ...]) -> None:
    """Such as the value of an unset variable, for which pathlib would take the current folder."""
    result = run(*words, "")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.endswith(": it is empty.\n")
