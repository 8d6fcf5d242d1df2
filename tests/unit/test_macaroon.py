from __future__ import annotations

import base64
import hmac
import json
import os
import subprocess
import time
from typing import TYPE_CHECKING, Any

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from flysync.model.fly import Token, TokenKind
from flysync.model.macaroon import ALL_ARE, described, narrowed
from flysync.secret import Secret
from flysync.sim import macaroon as made

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ROOT_KEY = b"k" * 32
PERMITS = "https://api.fly.io/v1"
DAY_S = 24 * 3600
NOW = 1_800_000_000
ORG, APP = made.organization(9), made.deploys(1)
END = made.until(NOW + 10 * DAY_S)
WHOLE = made.macaroon(ORG, APP, END)
DISCHARGE = made.macaroon(made.until(NOW + DAY_S), location=made.DISCHARGES)
REAL = os.environ.get("FLYSYNC_TEST_FLYCTL", "")


def signed(key: bytes, message: bytes) -> bytes:
    return hmac.new(key, message, "sha256").digest()


def minted(caveats: Sequence[Any], *, location: str = PERMITS, nonce: bytes = b"n" * 16) -> str:
    """Make a token as Fly does, from the root key; *caveats* are types and bodies in turn."""
    whose = [b"kid", nonce, False]
    tail = signed(ROOT_KEY, msgpack.packb(whose))
    for kind, body in zip(caveats[::2], caveats[1::2], strict=True):
        tail = signed(tail, msgpack.packb([kind, body]))
    return "fm2_" + base64.b64encode(msgpack.packb([whose, location, list(caveats), tail])).decode()


def opened(token: str) -> list[Any]:
    """Give the parts of a token."""
    raw = base64.b64decode(token.removeprefix("fm2_"), validate=True)
    parts: list[Any] = msgpack.unpackb(raw, strict_map_key=False)
    return parts


def verified(token: str) -> list[Any]:
    """Give the caveats of a token that comes from the root key, as Fly does; fail for any other."""
    nonce, _, caveats, tail = opened(token)
    key = signed(ROOT_KEY, msgpack.packb(nonce))
    for kind, body in zip(caveats[::2], caveats[1::2], strict=True):
        key = signed(key, msgpack.packb([kind, body]))
    assert key == tail, "macaroon verify: invalid"
    return list(caveats)


#: Parent, end, app, and what `flyctl tokens attenuate` makes of it (`test_flyctl_makes_the_same`).
VECTORS = [
    (
        minted([]),
        NOW,
        None,
        (
            "fm2_lJPEA2tpZMQQbm5ubm5ubm5ubm5ubm5ubsK1aHR0cHM6Ly9hcGkuZmx5LmlvL3YxkgSSAM5rSdIAxCD/YSWvykSCMDEwpqmm"
            "iroo2CuapBEuveuFKY3dH8bGwg=="
        ),
    ),
    (
        minted([0, [9, 31]]),
        NOW,
        7_654_321,
        (
            "fm2_lJPEA2tpZMQQbm5ubm5ubm5ubm5ubm5ubsK1aHR0cHM6Ly9hcGkuZmx5LmlvL3YxlgCSCR8EkgDOa0nSAA2SkgORgc4AdMux"
            "HwHEIGVCGGRecy72EtaFlnSidhO9RXBEHV4vQelqT/Dj5xQq"
        ),
    ),
    (
        minted([0, [9, 31], 13, [[3, [{7: 31}]], 1], 4, [0, 2**31], 4, [5, 2**32]]),
        NOW + 600,
        2**40,
        (
            "fm2_lJPEA2tpZMQQbm5ubm5ubm5ubm5ubm5ubsK1aHR0cHM6Ly9hcGkuZmx5LmlvL3YxnACSCR8NkpIDkYEHHwEEkgDOgAAAAASS"
            "Bc8AAAABAAAAAASSAM5rSdRYDZKSA5GBzwAAAQAAAAAAHwHEIM9jhBfK5EE9j9o5L+U+0ZjElPfLPJAIK595rFSFa31v"
        ),
    ),
]


@pytest.mark.parametrize(("parent", "end", "app", "expected"), VECTORS, ids=["bare", "organization", "deploy"])
def test_known_tokens(parent: str, end: int, app: int | None, expected: str) -> None:
    """Fixed keys and caveats give fixed tokens, whatever stands before and beside them."""
    other = minted([], location=made.DISCHARGES)

    assert expected == narrowed(parent, until=end, app_id=app)
    assert f"FlyV1 {other},{expected}" == narrowed(f"FlyV1 {other},{parent}", until=end, app_id=app)


@pytest.mark.skipif(not REAL, reason="no real flyctl: set FLYSYNC_TEST_FLYCTL")
@pytest.mark.parametrize(("parent", "end", "app", "expected"), VECTORS, ids=["bare", "organization", "deploy"])
def test_flyctl_makes_the_same(parent: str, end: int, app: int | None, expected: str, tmp_path: Path) -> None:
    """Byte by byte, with `tokens attenuate`."""
    caveats: list[dict[str, Any]] = [{"type": "ValidityWindow", "body": {"not_before": 0, "not_after": end}}]
    if app is not None:
        apps = {"type": "Apps", "body": {"apps": {str(app): "rwcdC"}}}
        caveats.append({"type": "IfPresent", "body": {"ifs": [apps], "else": "r"}})
    done = subprocess.run(
        [REAL, "tokens", "attenuate"],
        input=json.dumps(caveats).encode(),
        env={"HOME": str(tmp_path), "FLY_API_TOKEN": parent, "FLY_NO_UPDATE_CHECK": "1", "FLY_SEND_METRICS": "0"},
        capture_output=True,
        check=True,
        timeout=60,
    )

    assert expected == done.stdout.decode().strip().removeprefix("FlyV1 ")


bodies = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.integers(0, 2**64 - 1) | st.text(), inner),
    max_leaves=6,
)


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # they take their time on a busy machine
@given(
    caveats=st.lists(st.tuples(st.integers(0, 200), bodies), max_size=9),
    nonce=st.binary(max_size=300),
    ends=st.lists(st.integers(0, 2**40), min_size=1, max_size=3),
    app=st.none() | st.integers(1, 2**63 - 1),
)
def test_what_is_narrowed_is_verified_and_keeps_its_bytes(
    caveats: list[tuple[int, Any]], nonce: bytes, ends: list[int], app: int | None
) -> None:
    """However often, whatever it held; with a caveat cut off, or another one's, it is refused."""
    flat = [part for caveat in caveats for part in caveat]
    parent = token = minted(flat, nonce=nonce)
    more: list[Any] = []
    for end in ends:
        token = narrowed(token, until=end, app_id=app)
        more += [4, [0, end], *([] if app is None else [13, [[3, [{app: 31}]], 1]])]

    assert msgpack.packb(flat + more) == msgpack.packb(verified(token))
    assert opened(parent)[:2] == opened(token)[:2]
    whose, location, found, tail = opened(token)
    for wrong in (found[:-2], [*found[:-1], [0, 2**50]], flat):
        cut = "fm2_" + base64.b64encode(msgpack.packb([whose, location, wrong, tail])).decode()
        with pytest.raises(AssertionError, match="invalid"):
            verified(cut)


def test_a_parent_need_not_be_as_one_would_write_it() -> None:
    """Its numbers and texts stay as they are, for the tail was made of these."""
    odd = b"\xcf" + (9).to_bytes(8)  # a number that has room in one byte
    raw = b"\xdc\x00\x04" + msgpack.packb([b"kid", b"n", False]) + b"\xd9\x15" + PERMITS.encode()
    raw += b"\xdd\x00\x00\x00\x02\x00\x92" + odd + b"\x1f" + msgpack.packb(b"t" * 32)
    token = narrowed("fm2_" + base64.b64encode(raw).decode(), until=NOW)
    told = base64.b64decode(token.removeprefix("fm2_"))

    assert told.startswith(raw[: raw.index(b"\xdd")] + b"\x94\x00\x92" + odd + b"\x1f")
    assert told.endswith(msgpack.packb(signed(b"t" * 32, msgpack.packb([4, [0, NOW]]))))


def test_others_stay_as_they_are() -> None:
    """Discharges, tokens of the older kind, and what is no macaroon."""
    header = f"FlyV1 {DISCHARGE},{WHOLE},fo1_abc,x"
    told = narrowed(header, until=NOW).removeprefix("FlyV1 ").split(",")

    assert [DISCHARGE, "fo1_abc", "x"] == [told[0], *told[2:]]
    assert made.narrows(WHOLE, told[1])
    assert "fo1_abc" == narrowed("fo1_abc", until=NOW)


@pytest.mark.parametrize("header", ["fo1_abc", f"{WHOLE},fo1_abc"], ids=["alone", "beside a macaroon"])
def test_oauth_serves_no_app_alone(header: str) -> None:
    """It would be as wide as before, and nobody would know."""
    with pytest.raises(ValueError, match="OAuth"):
        narrowed(header, until=NOW, app_id=1)
    assert not Secret(header).matches(ALL_ARE)
    assert all(Secret(one).matches(ALL_ARE) for one in (WHOLE, f"FlyV1 {WHOLE},{DISCHARGE}"))


TOKENS: dict[str, tuple[str, TokenKind, float | None]] = {
    "deploy": (f"FlyV1 {WHOLE}", TokenKind.DEPLOY, 10),
    "organization": (made.macaroon(ORG, END), TokenKind.ORG, 10),
    "without an end": (made.macaroon(ORG), TokenKind.ORG, None),
    "in another age": (made.macaroon(ORG, made.until(2**62)), TokenKind.ORG, None),
    "the first end counts": (made.macaroon(ORG, made.until(NOW + 3 * DAY_S), END), TokenKind.ORG, 3),
    "over": (made.macaroon(ORG, APP, made.until(NOW - DAY_S)), TokenKind.DEPLOY, -1),
    "personal": (made.macaroon(ORG, made.login()), TokenKind.PERSONAL, None),
    "with its discharge": (f"{made.macaroon(ORG, made.login(), END)},{DISCHARGE}", TokenKind.ORG, 10),
    "beside an old one": (f"{WHOLE},fo1_abc", TokenKind.DEPLOY, 10),
    "old": ("fo1_abc", TokenKind.OAUTH, None),
    "narrowed": (narrowed(made.macaroon(ORG), until=NOW + DAY_S, app_id=3), TokenKind.DEPLOY, 1),
    "for two organizations": (f"{WHOLE},{made.macaroon(ORG)}", TokenKind.ORG, 10),
    "for two apps": (f"{WHOLE},{made.macaroon(APP)}", TokenKind.DEPLOY, 10),
    "of odd caveats": (minted([4, 7, 4, [], 13, None, "x", {}]), TokenKind.ORG, None),
}


@pytest.mark.parametrize("name", TOKENS)
def test_what_tokens_say_of_themselves(name: str) -> None:
    """Kind and end of each, and whether a sandbox gets it as it is."""
    text, kind, days = TOKENS[name]
    token = described(text, now=NOW)

    assert (kind, days) == (token.kind, None if token.left_s is None else token.left_s / DAY_S)
    assert token.can_be_narrowed == ("fo1_" not in text)
    assert (None if days is None else NOW + days * DAY_S) == (token.expires_at and token.expires_at.timestamp())


@given(where=st.integers(0, 10_000), byte=st.integers(0, 255), length=st.integers(0, 10_000))
def test_what_was_changed_is_told_or_harmless(where: int, byte: int, length: int) -> None:
    """Cut or overwritten anywhere, a token is taken or refused in words that hold no piece of it, and nothing else."""
    raw = bytearray(base64.b64decode(WHOLE.removeprefix("fm2_")))
    raw[where % len(raw)] = byte
    text = "fm2_" + base64.b64encode(raw[: length % len(raw) + 1]).decode()
    refused = ""
    try:
        assert isinstance(described(text, now=NOW), Token)
        assert narrowed(text, until=NOW).startswith("fm2_")
    except ValueError as error:
        refused = str(error)

    assert refused.partition(":")[0] in {"", "begins like a macaroon but is not a valid one", "permits nothing"}
    assert "fm2_" not in refused


def test_it_takes_no_time() -> None:
    """Each step of a run makes one."""
    began = time.perf_counter()
    for _ in range(100):
        narrowed(WHOLE, until=NOW, app_id=1)

    assert time.perf_counter() - began < 1.0
