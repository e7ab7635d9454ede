"""No configured secret is in any output, whatever fails and whatever a peer answers."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import os
from typing import Any
from unittest import mock

from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.stand_in import APP, Reply, Seen, StandIn, error
from tests.store import free_port
from tim_async import TIMClient, doctor
from tim_async.cli.app import cli
from tim_async.quota import RedisQuota

SEEDS = st.integers(0, 2**64)
KEYS = SEEDS.map(lambda seed: hashlib.sha256(str(seed).encode()).hexdigest())
PASSWORDS = SEEDS.map(lambda seed: base64.b32encode(hashlib.sha256(f"{seed}?".encode()).digest()).decode()[:14])
CODES = st.sampled_from([0, 60006, 60010, 60026, 70001, 70009, 77777])
SETTINGS = ("TIM_SECRET_KEY", "TIM_IDENTIFIER", "TIM_REGION", "TIM_BASE_URL", "TIM_SDK_APP_ID", "TIM_QUOTA_URL")


def parts(secret: str) -> set[str]:
    """Return the pieces of a secret and of its base64, none of which may be shown."""
    encoded = base64.b64encode(secret.encode()).decode()
    return {text[at : at + 8] for text in (secret, encoded) for at in range(len(text) - 7)}


def echoing(code: int) -> Any:
    """Make a service that echoes the request in its body and headers."""

    def answer(seen: Seen) -> Reply:
        refused = error(code, f"{seen.path}?{seen.raw_query} {seen.usersig} {seen.headers}")
        return refused._replace(headers=(*refused.headers, ("Date", seen.usersig), ("X-Was", seen.raw_query)))

    return answer


@settings(max_examples=30)
@given(key=KEYS, proxy=PASSWORDS, store=PASSWORDS, code=CODES, proxied=st.booleans(), shared=st.booleans())
def test_no_secret_is_in_a_finding(key: str, proxy: str, store: str, code: int, proxied: bool, shared: bool) -> None:
    """Neither the key, nor a UserSig, nor the password of the proxy or the store."""

    async def examine() -> tuple[str, set[str]]:
        async with StandIn(answer=echoing(code)) as service:
            port = free_port()
            tim = TIMClient(
                sdk_app_id=APP,
                secret_key=key,
                base_url=service.url,
                proxy=f"http://me:{proxy}@127.0.0.1:{port}" if proxied else None,
                quota=RedisQuota(f"redis://me:{store}@127.0.0.1:{port}/0") if shared else None,
            )
            try:
                found = await doctor(tim, timeout=0.5)
            finally:
                await tim.aclose()
            return repr(found), service.usersigs

    shown, usersigs = asyncio.run(examine())
    for secret in (key, proxy, store, *usersigs):
        assert not [part for part in parts(secret) if part in shown]


@settings(max_examples=30)
@given(key=KEYS, password=PASSWORDS, place=st.sampled_from(SETTINGS), as_json=st.booleans())
def test_no_secret_is_printed_even_from_a_wrong_setting(key: str, password: str, place: str, as_json: bool) -> None:
    """As when the key is in another variable than its own."""
    unreachable = f"http://127.0.0.1:{free_port()}"
    given_settings = {
        "TIM_SDK_APP_ID": str(APP),
        "TIM_SECRET_KEY": key,
        "TIM_BASE_URL": unreachable,
        "TIM_QUOTA_URL": f"redis://:{password}@127.0.0.1:{free_port()}",
        "HTTP_PROXY": f"http://me:{password}@127.0.0.1:{free_port()}",
        "NO_PROXY": "",
        place: key,
    }
    if place == "TIM_REGION":
        del given_settings["TIM_BASE_URL"]
    arguments = ["doctor", "--timeout", "0.5", *(["--json"] if as_json else [])]
    with mock.patch.dict(os.environ, clear=True):
        result = CliRunner().invoke(cli, arguments, env=given_settings, prog_name="tim-async")
    assert result.exit_code == 1
    if as_json:
        assert not json.loads(result.stdout)["ok"]
    for secret in (key, password):
        assert not [part for part in parts(secret) if part in result.output]
