"""A constructor that fails shows no key, neither in the error nor in a variable of the library's frames."""

from __future__ import annotations

import gc
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.stand_in import APP, KEY
from tim_async import TIMClient, usersig

from .secrets import Secrets
from .walk import texts_as_printed, texts_of_failure, without_frames_of_tests

GIVEN: dict[str, Any] = {"sdk_app_id": APP, "secret_key": KEY, "region": "singapore"}
PEM = f"-----BEGIN PRIVATE KEY-----\n{KEY}\n-----END PRIVATE KEY-----"

MISTAKES: dict[str, dict[str, Any]] = {
    "an unknown region": {"region": "atlantis"},
    "neither region nor base_url": {"region": None},
    "both region and base_url": {"base_url": "http://127.0.0.1:1"},
    "an invalid base_url": {"region": None, "base_url": "ftp://127.0.0.1"},
    "a base_url of the wrong type": {"region": None, "base_url": b"http://127.0.0.1"},
    "plain HTTP to another machine": {"region": None, "base_url": "http://chat.example.com"},
    "a timeout of 0": {"timeout": 0},
    "a timeout of the wrong type": {"timeout": "10"},
    "an unknown endpoint in rates": {"rates": {"get_everything": 200}},
    "a rate of 0": {"rates": {"set_unread_msg_num": 0}},
    "rates of the wrong type": {"rates": [200]},
    "a retry policy of the wrong type": {"retry": 3},
    "a session of the wrong type": {"session": object()},
    "a quota of the wrong type": {"quota": "redis://127.0.0.1"},
    "a hook of the wrong type": {"on_attempt": 1},
    "an app of the wrong type": {"sdk_app_id": "abc"},
    "a negative app": {"sdk_app_id": -1},
    "an identifier with a lone surrogate": {"identifier": "admin\ud800"},
    "an identifier of the wrong type": {"identifier": 7},
    "an expiry of 0": {"usersig_expire": 0},
    "an invalid proxy": {"proxy": "socks9://127.0.0.1:1"},
    "a key with a space": {"secret_key": f"{KEY} "},
    "a key with a space within": {"secret_key": f"{KEY[:32]} {KEY[32:]}"},
    "a key with a line end": {"secret_key": f"{KEY}\n"},
    "a key of the wrong type": {"secret_key": KEY.encode()},
    "a key in a list": {"secret_key": [KEY]},
    "a short key": {"secret_key": KEY[:24]},
    "a key that is PEM": {"secret_key": PEM},
    "a key with a lone surrogate": {"secret_key": f"{KEY}\ud800"},
    "an unknown argument": {"regoin": "singapore"},
}


def assert_no_secret(failure: BaseException, *others: str) -> None:
    """Assert that neither the exception nor the variables of its frames show the key or other secrets."""
    secrets = Secrets()
    secrets.learn()
    for other in others:
        secrets.learn_one(other)
    # The test's own frames hold the key, as a program's do that has it in a variable.
    ours = without_frames_of_tests(failure)
    assert [place for text in texts_of_failure(ours) for place in secrets.found_in(text)] == []
    assert [place for text in texts_as_printed(ours) for place in secrets.found_in(text)] == []


def failure_of(make: Callable[[], Any]) -> BaseException:
    try:
        made = make()
    except (ValueError, TypeError, OSError, AttributeError) as raised:
        return raised
    raise AssertionError(f"nothing was raised, and the result was a {type(made).__name__}")


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_an_invalid_argument_shows_no_key(mistake: dict[str, Any]) -> None:
    """No variable in the traceback has the key."""
    options = {**GIVEN, **mistake}
    failure = failure_of(lambda: TIMClient(**options))
    if "regoin" in mistake:  # Python itself rejects it, without a frame of the constructor
        assert "regoin" in str(failure)
    assert_no_secret(failure)


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_a_half_made_client_has_a_repr_without_a_key_and_can_be_collected(mistake: dict[str, Any]) -> None:
    """Crash reporters show `self` in the constructor's frame."""
    tim = object.__new__(TIMClient)
    with pytest.raises((ValueError, TypeError)):
        tim.__init__(**{**GIVEN, **mistake})  # type: ignore[misc]
    for text in (repr(tim), str(tim), f"{tim}", repr([tim])):
        assert "TIMClient" in text
        assert KEY[:20] not in text
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        del tim
        gc.collect()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The variables of a complete configuration, and no others."""
    for name in [name for name in os.environ if name.startswith("TIM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TIM_SDK_APP_ID", str(APP))
    monkeypatch.setenv("TIM_SECRET_KEY", KEY)
    monkeypatch.setenv("TIM_REGION", "singapore")
    return monkeypatch


@pytest.mark.parametrize(
    "changes",
    [
        {"TIM_SDK_APP_ID": "abc"},
        {"TIM_SDK_APP_ID": "14e8"},
        {"TIM_SDK_APP_ID": None},
        {"TIM_REGION": "atlantis"},
        {"TIM_REGION": None},
        {"TIM_BASE_URL": "http://127.0.0.1:1"},
        {"TIM_REGION": None, "TIM_BASE_URL": "ftp://x"},
        {"TIM_SECRET_KEY": f"{KEY[:30]} {KEY[30:]}"},
        {"TIM_SECRET_KEY": PEM},
        {"TIM_SECRET_KEY": KEY[:24]},
    ],
    ids=str,
)
def test_an_invalid_environment_shows_no_key(environment: pytest.MonkeyPatch, changes: dict[str, str | None]) -> None:
    """``repr(os.environ)`` holds the key, so no frame that raises may hold the environment."""
    for name, value in changes.items():
        if value is None:
            environment.delenv(name)
        else:
            environment.setenv(name, value)
    assert_no_secret(failure_of(TIMClient.from_env))


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"rates": {"x": 1}}, {"region": "atlantis"}, {"sdk_app_id": "abc"}], ids=str
)
@pytest.mark.parametrize("given", [{}, {"secret_key": KEY}, {"proxy": f"http://user:{KEY}@proxy:3128"}], ids=[*"ekp"])
def test_an_invalid_option_of_from_env_shows_no_key(
    environment: pytest.MonkeyPatch, options: dict[str, Any], given: dict[str, Any]
) -> None:
    """Neither that of the environment nor one that is given, such as from a vault."""
    assert_no_secret(failure_of(lambda: TIMClient.from_env(**options, **given)))


def test_an_invalid_level_shows_no_key(environment: pytest.MonkeyPatch) -> None:
    """Neither that of the environment nor one that is given."""
    environment.setenv("TIM_LOG", "loud")
    assert_no_secret(failure_of(TIMClient.from_env))
    assert_no_secret(failure_of(lambda: TIMClient.from_env(secret_key=KEY)))


def test_a_missing_key_file_shows_no_key(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The error names the file, and no other variable."""
    environment.setenv("TIM_SECRET_KEY", "")
    environment.setenv("TIM_OLD_KEY", KEY)
    environment.setenv("TIM_SECRET_KEY_FILE", str(tmp_path / "nowhere"))
    failure = failure_of(TIMClient.from_env)
    assert isinstance(failure, FileNotFoundError)
    assert "nowhere" in str(failure)
    assert_no_secret(failure)


@pytest.mark.parametrize(
    "content",
    [
        KEY.encode() + b"\xff\xfe",
        KEY.encode("utf-16"),
        f"{KEY} {KEY}".encode(),
        f"{KEY}\n{KEY}\n".encode(),
        KEY[:20].encode(),
        PEM.encode(),
        f"TIM_SECRET_KEY={KEY}\nexport".encode(),
    ],
    ids=["binary after the key", "UTF-16", "two keys", "two lines", "cut short", "PEM", "a file of variables"],
)
def test_an_invalid_key_file_shows_none_of_its_content(
    environment: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    """A UnicodeDecodeError would hold all of it."""
    file = tmp_path / "key"
    file.write_bytes(content)
    environment.delenv("TIM_SECRET_KEY")
    environment.setenv("TIM_SECRET_KEY_FILE", str(file))
    assert_no_secret(failure_of(TIMClient.from_env))


GENUINE = usersig.sign(APP, KEY, "alice", issued_at=1_700_000_000)
MISUSES: dict[str, Callable[[], object]] = {
    "sign: no key": lambda: usersig.sign(APP, "", "alice", issued_at=1),
    "sign: a key that is PEM": lambda: usersig.sign(APP, PEM, "alice", issued_at=1),
    "sign: a key of bytes": lambda: usersig.sign(APP, KEY.encode(), "alice", issued_at=1),  # type: ignore[arg-type]
    "sign: a lone surrogate": lambda: usersig.sign(APP, KEY, "alice\ud800", issued_at=1),
    "sign: a userbuf of str": lambda: usersig.sign(APP, KEY, "alice", issued_at=1, userbuf="x"),  # type: ignore[arg-type]
    "verify: nonsense": lambda: usersig.verify("nonsense", APP, KEY, now=1),
    "verify: another app": lambda: usersig.verify(GENUINE, APP + 1, KEY, now=1),
    "verify: another key": lambda: usersig.verify(GENUINE, APP, KEY[::-1], now=1),
    "verify: expired": lambda: usersig.verify(GENUINE, APP, KEY, now=1e12),
    "verify: a key of bytes": lambda: usersig.verify(GENUINE, APP, KEY.encode(), now=1),  # type: ignore[arg-type]
    "verify: None for a UserSig": lambda: usersig.verify(None, APP, KEY, now=1),  # type: ignore[arg-type]
    "verify: a time of str": lambda: usersig.verify(GENUINE, APP, KEY, now="x"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
def test_a_misused_usersig_function_shows_no_key(misuse: Callable[[], object]) -> None:
    """None of its frames holds the given key when it raises."""
    assert_no_secret(failure_of(misuse), KEY[::-1], GENUINE)


def test_the_scan_finds_keys_usersigs_and_their_encodings() -> None:
    secrets = Secrets()
    secrets.learn()
    shown = GENUINE[: len(GENUINE) // 4 * 4]
    for text in (KEY, f"x{KEY[5:40]}y", shown, shown[:60], f"?usersig={shown[:10]}", repr(KEY.encode())):
        assert secrets.found_in(text), text
    assert secrets.found_in("".join(f"%{ord(c):02x}" for c in KEY))
    assert secrets.found_in("".join(f"\\u{ord(c):04x}" for c in KEY))
    assert secrets.found_in("a trace id 5bd2850fff3ecb11 and a word") == []
