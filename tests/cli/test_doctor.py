"""``tim-async doctor``: the configuration of a process, the output and the exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from tests.doctor.support import READS
from tim_async.emulator import DEFAULT_SECRET_KEY as KEY
from tim_async.emulator import Emulator
from tim_async.usersig import sign

from .conftest import Run

USERSIG = sign(1400000000, KEY, "administrator", issued_at=1700000000)


def document(result: Result) -> Any:
    return json.loads(result.stdout)


def troubles(result: Result) -> set[str]:
    """The names of warnings and failures; the exit code must agree with the document."""
    shown = document(result)
    levels = {one["level"] for one in shown["findings"]}
    assert shown["ok"] == ("failure" not in levels) == (result.exit_code == 0)
    assert result.exit_code in (0, 1)
    return {one["name"] for one in shown["findings"] if one["level"] in ("warning", "failure")}


def test_a_working_configuration_has_no_problems(run: Run, service: Emulator, reach: dict[str, str]) -> None:
    """A line for each finding; the service was only read."""
    result = run("doctor", "--group", "@TGS#public", env=reach)
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "ok       configuration                 app 1400000000, from the environment"
    assert all(line.split()[0] in ("ok", "skipped") for line in lines)
    assert "0 warning, 0 failure" in result.stderr
    assert {*service.report().endpoints} == READS


def test_a_failure_has_a_remedy(run: Run, reach: dict[str, str]) -> None:
    """It has a remedy, and the checks that were skipped because of it are on one line."""
    result = run("doctor", env={**reach, "TIM_IDENTIFIER": "alice"})
    assert result.exit_code == 1
    assert "failure  admin.missing" in result.stdout
    after = result.stdout.split("admin.missing")[1].splitlines()
    assert [line.strip().partition(":")[0] for line in after[1:4]] == ["means", "do", "see"]
    assert result.stdout.count("not run, because of admin.missing") == 1
    assert "1 failure" in result.stderr


SETTINGS: dict[str, tuple[dict[str, str | None], str]] = {
    "no app": ({"TIM_SDK_APP_ID": None}, "configuration.incomplete"),
    "no key": ({"TIM_SECRET_KEY": None}, "configuration.incomplete"),
    "an app of letters": ({"TIM_SDK_APP_ID": "mine"}, "configuration.invalid"),
    "app 0": ({"TIM_SDK_APP_ID": "0"}, "configuration.invalid"),
    "an app too large for any": ({"TIM_SDK_APP_ID": "9" * 19}, "configuration.invalid"),
    "an identifier that is not text": ({"TIM_IDENTIFIER": "\udcff"}, "configuration.invalid"),
    "a host that is not text": ({"TIM_BASE_URL": "http://\udcff"}, "configuration.invalid"),
    "an invalid switch": ({"TIM_ALLOW_HTTP": "yes"}, "configuration.invalid"),
    "a missing key file": (
        {"TIM_SECRET_KEY": None, "TIM_SECRET_KEY_FILE": "/no/such/file"},
        "configuration.unreadable",
    ),
    "two keys": ({"TIM_SECRET_KEY_FILE": "/no/such/file"}, "configuration.two_keys"),
    "a quoted key": ({"TIM_SECRET_KEY": f'"{KEY}"'}, "key.quoted"),
    "a key with a line end": ({"TIM_SECRET_KEY": f"{KEY}\n"}, "key.blank"),
    "a key with a blank": ({"TIM_SECRET_KEY": f"{KEY[:32]} {KEY[32:]}"}, "key.blank"),
    "half a key": ({"TIM_SECRET_KEY": KEY[:20]}, "key.short"),
    "a key of another kind": ({"TIM_SECRET_KEY": "ssh-rsa" + KEY}, "key.other_kind"),
    "a key in another script": ({"TIM_SECRET_KEY": "é" * 64}, "key.other_kind"),
    "a UserSig for a key": ({"TIM_SECRET_KEY": USERSIG}, "key.usersig"),
    "the key for an identifier": ({"TIM_IDENTIFIER": KEY}, "identifier.key"),
    "nowhere": ({"TIM_BASE_URL": None}, "place.missing"),
    "two places": ({"TIM_REGION": "tokyo"}, "place.both"),
    "an unknown region": ({"TIM_BASE_URL": None, "TIM_REGION": "atlantis"}, "place.unknown_region"),
    "the key for a region": ({"TIM_BASE_URL": None, "TIM_REGION": KEY}, "place.unknown_region"),
    "http to a host": ({"TIM_BASE_URL": "http://chat.example"}, "place.unencrypted"),
    "an invalid URL": ({"TIM_BASE_URL": "chat.example"}, "place.invalid"),
    "a URL with a password": ({"TIM_BASE_URL": f"https://me:{KEY}@chat.example"}, "place.invalid"),
}


@pytest.mark.parametrize(("changed", "name"), SETTINGS.values(), ids=SETTINGS)
def test_an_invalid_setting_is_named_and_secrets_are_not_shown(
    run: Run, service: Emulator, reach: dict[str, str], changed: dict[str, str | None], name: str
) -> None:
    """The finding names it, a value that may be a secret is never shown, and nothing is sent if it is surely wrong."""
    env = {key: value for key, value in {**reach, **changed}.items() if value is not None}
    as_text, result = run("doctor", env=env), run("doctor", "--json", env=env)
    for secret in (KEY[:16], USERSIG[:16], "é"):
        assert secret not in as_text.output + result.output
    assert troubles(result) == {name}
    assert (service.report().total.calls > 0) == (result.exit_code == 0)


def test_an_unusual_key(run: Run, service: Emulator, reach: dict[str, str]) -> None:
    """It may be right, so that the other checks run; here it is not."""
    result = run("doctor", "--json", env={**reach, "TIM_SECRET_KEY": "Z" * 64})
    assert troubles(result) == {"key.unusual", "signature.wrong_key"}


def test_a_path_in_the_url(run: Run, reach: dict[str, str]) -> None:
    """As copied from a document; the commands are then unknown."""
    result = run("doctor", "--json", env={**reach, "TIM_BASE_URL": reach["TIM_BASE_URL"] + "/v4/openim"})
    assert "place.path" in troubles(result)


def test_a_mistyped_variable(run: Run, reach: dict[str, str]) -> None:
    """The finding names an unused variable along with the missing one."""
    reach["TIM_SDKAPPID"] = reach.pop("TIM_SDK_APP_ID")
    result = run("doctor", "--json", env=reach)
    found = document(result)["findings"][0]
    assert found["name"] == "configuration.incomplete"
    assert "TIM_SDKAPPID is set there, which nothing reads" in found["found"]


def written(folder: Path, lines: list[str]) -> str:
    (folder / "credentials").write_text("\n".join(lines))
    return str(folder / "credentials")


FILES: dict[str, tuple[list[str], str]] = {
    "a line without a name": ([KEY], "configuration.invalid"),
    "an unknown setting": ([f"TIM_SECRETKEY={KEY}"], "configuration.invalid"),
    "half of it": ([f"TIM_SECRET_KEY={KEY}"], "configuration.incomplete"),
}


@pytest.mark.parametrize(("lines", "name"), FILES.values(), ids=FILES)
def test_an_invalid_file(run: Run, reach: dict[str, str], tmp_path: Path, lines: list[str], name: str) -> None:
    """The environment is ignored then."""
    result = run("doctor", "--json", "--credentials", written(tmp_path, lines), env=reach)
    assert document(result)["findings"][0]["name"] == name
    assert KEY not in result.output


def test_a_missing_file(run: Run, reach: dict[str, str]) -> None:
    result = run("doctor", "--json", env={**reach, "TIM_CREDENTIALS": "/no/such/file"})
    assert troubles(result) == {"configuration.unreadable"}


def test_a_valid_file(run: Run, reach: dict[str, str], tmp_path: Path) -> None:
    """It is named as the source."""
    file = written(tmp_path, [f"{name}={value}" for name, value in reach.items()])
    result = run("doctor", "--credentials", file)
    assert result.exit_code == 0
    assert f"app 1400000000, from {file}" in result.stdout


@pytest.mark.parametrize(
    ("url", "name"), [("redis://:sesame-81@127.0.0.1:port", "quota.invalid"), ("mysql://store", "quota.invalid")]
)
def test_an_invalid_quota(run: Run, reach: dict[str, str], url: str, name: str) -> None:
    """The other checks run."""
    result = run("doctor", "--json", env={**reach, "TIM_QUOTA_URL": url})
    assert troubles(result) == {name}
    assert "sesame" not in result.output


def test_a_quota_without_its_library(run: Run, reach: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    found: Callable[..., Any] = lambda _: None  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", found)
    result = run("doctor", "--json", "--quota", "redis://127.0.0.1:1", env=reach)
    assert troubles(result) == {"quota.not_installed"}


def test_the_proxy_of_the_environment(run: Run, reach: dict[str, str]) -> None:
    result = run("doctor", "--json", env={**reach, "HTTP_PROXY": "ftp://me:sesame-81@proxy", "NO_PROXY": ""})
    assert troubles(result) == {"proxy.invalid"}
    assert "sesame" not in result.output


def test_a_service_that_never_answers(run: Run, reach: dict[str, str]) -> None:
    """The service accepts and never answers."""
    with Emulator() as silent:
        silent.stall(60)
        result = run("doctor", "--json", "--timeout", "0.5", env={**reach, "TIM_BASE_URL": silent.url})
    assert troubles(result) == {"answer.late"}
