"""
Fly's tokens (macaroons): made for tests, and verified as far as Fly can.

Shapes were measured with superfly/macaroon v0.3.0, which flyctl ad0172fac is built with: MessagePack, base64 behind
`fm2_`. Of the caveats those are known that Fly's own tokens have.
"""

from __future__ import annotations

import base64
import hmac
import os
from typing import TYPE_CHECKING, Any

from msgpack import packb, unpackb

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Where tokens come from that permit something, and those that discharge their caveats.
PERMITS = "https://api.fly.io/v1"
DISCHARGES = "https://api.fly.io/aaa/v1"

_ALL = 31
_PREFIX = "fm2_"


def organization(number: int) -> list[Any]:
    """Give the caveat that limits a token to one organization."""
    return [0, [number, _ALL]]


def deploys(app: int) -> list[Any]:
    """Give the caveat of a deploy token: all of one app, and nothing else but reading."""
    return [13, [[3, [{app: _ALL}]], 1]]


def until(moment: int) -> list[Any]:
    """Give the caveat that ends a token, in seconds since 1970."""
    return [4, [0, moment]]


def login() -> list[Any]:
    """Give the caveat that only a login discharges."""
    return [11, [DISCHARGES, os.urandom(60), os.urandom(64)]]


def macaroon(*caveats: Sequence[Any], location: str = PERMITS) -> str:
    """Give a token that has these caveats."""
    flat = [part for caveat in caveats for part in caveat]
    raw = packb([[b"kid", os.urandom(16), False], location, flat, os.urandom(32)])
    return _PREFIX + base64.b64encode(raw).decode()


def caveats(token: str) -> list[tuple[int, Any]]:
    """
    Give what limits a token: kinds, and what each says.

    Raises:
        ValueError: it is none, or has been cut.
    """
    return _pairs(_parts(token)[2])


def narrows(parent: str, token: str) -> bool:
    """Tell whether *token* is *parent* with more caveats: each is signed with the key that the one before has left."""
    try:
        (*before, old, key), (*after, flat, tail) = _parts(parent), _parts(token)
    except ValueError:
        return False
    for kind, body in _pairs(flat[len(old) :]):
        key = hmac.digest(key, packb([kind, body]), "sha256")
    return (before, old) == (after, flat[: len(old)]) and hmac.compare_digest(key, tail)


def apps(token: str) -> set[int] | None:
    """Give the ids of the apps that a token serves; nothing where it does not say so (read: flyio/caveats.go)."""
    outer = caveats(token)
    inner = [pair for kind, body in outer if kind == 13 for pair in _pairs(body[0])]
    named = [set(body[0]) for kind, body in (*outer, *inner) if kind == 3]
    return set.intersection(*named) if named else None


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _parts(token: str) -> list[Any]:
    raw = base64.b64decode(token.removeprefix(_PREFIX), validate=True)
    try:
        nonce, location, flat, tail = unpackb(raw, strict_map_key=False)
        _pairs(flat)
    except (TypeError, ValueError):
        raise ValueError("not a macaroon") from None
    return [nonce, location, flat, tail]


def ends(token: str) -> float:
    """Give when a token ends, in seconds since 1970; one that cannot be decoded has ended."""
    try:
        return min((body[1] for kind, body in caveats(token) if kind == 4), default=float("inf"))
    except ValueError:
        return 0.0
