from __future__ import annotations

import json
from pathlib import Path

import pytest

from tim_async import config
from tim_async.cli.credentials import client_options, load
from tim_async.cli.failures import Misuse
from tim_async.usersig import verify

from .conftest import Run

KEY = "0123456789abcdef" * 4


def test_a_key_in_a_file(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """TIM_SECRET_KEY_FILE names a file with the key, with or without a line end."""
    reach["TIM_SECRET_KEY_FILE"] = str(tmp_path / "key")
    (tmp_path / "key").write_text(reach.pop("TIM_SECRET_KEY") + "\n")
    assert run("unread", "alice", env=reach).exit_code == 0


def test_a_file_of_credentials(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """--credentials and TIM_CREDENTIALS name a file of KEY=VALUE lines."""
    file = tmp_path / "credentials"
    lines = ["# of the emulator", "", "OTHER=1", f'export TIM_BASE_URL="{reach.pop("TIM_BASE_URL")}"']
    lines += [f"{name} = {value}" for name, value in reach.items()]
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    assert run("unread", "alice", "--credentials", str(file)).exit_code == 0
    assert run("unread", "alice", env={"TIM_CREDENTIALS": str(file)}).exit_code == 0


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("TIM_IDENTIFIER=a # of the test app", "a"),
        ("TIM_IDENTIFIER = 'a'\t# it's the test app's", "a"),
        ('TIM_IDENTIFIER="a # b"', "a # b"),
        ("TIM_IDENTIFIER=\"it's\" # 'x'", "it's"),
        ("TIM_IDENTIFIER=a#b", "a#b"),
        ("TIM_IDENTIFIER=#a", "#a"),
        ("TIM_IDENTIFIER= # none", ""),
        ("TIM_IDENTIFIER='' # none", ""),
        ("export\t TIM_IDENTIFIER=a", "a"),
    ],
)
def test_comments_quotes_and_export_as_in_a_shell(tmp_path: Path, line: str, value: str) -> None:
    (tmp_path / "credentials").write_text(f"{line}\n")
    assert config.read_file(tmp_path / "credentials") == {"TIM_IDENTIFIER": value}


def test_a_key_file_beside_the_credentials(tmp_path: Path) -> None:
    """A relative TIM_SECRET_KEY_FILE is relative to the file that names it."""
    (tmp_path / "key").write_text(KEY)
    (tmp_path / "credentials").write_text("TIM_SDK_APP_ID=1\nTIM_SECRET_KEY_FILE=key\nTIM_REGION=tokyo\n")
    found = client_options(tmp_path / "credentials")
    assert (found["secret_key"].reveal(), found["region"]) == (KEY, "tokyo")
    assert KEY not in repr(found)


def test_a_file_is_not_mixed_with_the_environment(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """A value that is not in the file is missing, even if it is in the environment."""
    (tmp_path / "credentials").write_text(f"TIM_SECRET_KEY={KEY}\n")
    result = run("unread", "alice", "--credentials", str(tmp_path / "credentials"), env=reach)
    assert result.exit_code == 2
    assert "TIM_SDK_APP_ID not set" in result.stderr


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({}, "TIM_SDK_APP_ID and TIM_SECRET_KEY (or TIM_SECRET_KEY_FILE) not set"),
        ({"TIM_SDK_APP_ID": "1"}, "TIM_SECRET_KEY (or TIM_SECRET_KEY_FILE) not set"),
        ({"TIM_SDK_APP_ID": "one", "TIM_SECRET_KEY": KEY}, "TIM_SDK_APP_ID in the environment is not a number"),
        ({"TIM_SDK_APP_ID": "1", "TIM_SECRET_KEY": KEY}, "neither is set"),
        ({"TIM_SDK_APP_ID": "1", "TIM_SECRET_KEY": KEY, "TIM_REGION": "x", "TIM_BASE_URL": "http://x"}, "both are set"),
        ({"TIM_SDK_APP_ID": "1", "TIM_SECRET_KEY": KEY, "TIM_REGION": "atlantis"}, "unknown region"),
        ({"TIM_SDK_APP_ID": "1", "TIM_SECRET_KEY": KEY[:20], "TIM_REGION": "tokyo"}, "too short"),
        ({"TIM_SDK_APP_ID": "1", "TIM_SECRET_KEY_FILE": "/no/such/file"}, "cannot read /no/such/file"),
        ({"TIM_CREDENTIALS": "/no/such/file"}, "cannot read /no/such/file"),
    ],
)
def test_missing_and_invalid_values_are_reported(run: Run, env: dict[str, str], said: str) -> None:
    """Exit code 2, one line, and no part of the key in it."""
    result = run("unread", "alice", env=env)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert KEY[:16] not in result.stderr


@pytest.mark.parametrize("line", [KEY, f"TIM_SECRETKEY={KEY}"])
def test_an_invalid_line_is_not_shown(tmp_path: Path, line: str) -> None:
    """It may be the key itself."""
    (tmp_path / "credentials").write_text(f"TIM_SDK_APP_ID=1\n{line}\n")
    with pytest.raises(Misuse, match="line 2") as caught:
        load(tmp_path / "credentials")
    assert KEY not in caught.value.message


def test_a_file_that_is_not_utf_8(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Misuse, match="not UTF-8"):
        load(tmp_path / "credentials")


def test_usersig(run: Run) -> None:
    """The only command that prints a secret prints a valid one, and nothing else on standard output."""
    env = {"TIM_SDK_APP_ID": "1400000000", "TIM_SECRET_KEY": KEY}
    result = run("usersig", env=env)
    assert result.exit_code == 0
    usersig = result.stdout.removesuffix("\n")
    assert usersig not in result.stderr
    assert KEY not in result.output
    claims = verify(usersig, 1400000000, KEY, now=0)
    assert (claims.identifier, claims.expire) == ("administrator", 86400)


def test_the_usersig_of_a_given_identifier(run: Run) -> None:
    env = {"TIM_SDK_APP_ID": "1400000000", "TIM_SECRET_KEY": KEY, "TIM_IDENTIFIER": "admin2"}
    document = json.loads(run("usersig", "--identifier", "陈大文", "--expire", "60", "--json", env=env).stdout)
    claims = verify(document["usersig"], 1400000000, KEY, now=0)
    assert (claims.identifier, claims.expire, claims.issued_at) == ("陈大文", 60, document["issued_at"])
    assert json.loads(run("usersig", "--json", env=env).stdout)["identifier"] == "admin2"


@pytest.mark.parametrize("args", [("--identifier", ""), ("--expire", "0"), ("--expire", "soon")])
def test_invalid_options_of_usersig(run: Run, args: tuple[str, ...]) -> None:
    result = run("usersig", *args, env={"TIM_SDK_APP_ID": "1", "TIM_SECRET_KEY": KEY})
    assert (result.exit_code, result.stdout) == (2, "")


def test_an_expiry_beyond_the_calendar(run: Run) -> None:
    """An expiry beyond the calendar is printed as a number."""
    env = {"TIM_SDK_APP_ID": "1", "TIM_SECRET_KEY": KEY}
    result = run("usersig", "--expire", str(10**14), env=env)
    assert result.exit_code == 0
    assert "unix seconds" in result.stderr
