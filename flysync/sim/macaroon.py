"""
Fly's tokens (macaroons): made for tests, decoded as `flyctl tokens debug` does, and verified as far as Fly can.

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


def decoded(token: str) -> dict[str, Any]:
    """
    Give what flyctl shows of a token.

    Raises:
        ValueError: it is none, or has been cut.
    """
    _, location, flat, _ = _parts(token)
    return {"location": location, "caveats": [_caveat(*pair) for pair in _pairs(flat)]}


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
    flat = _parts(token)[2]
    inner = [pair for kind, body in _pairs(flat) if kind == 13 for pair in _pairs(body[0])]
    named = [set(body[0]) for kind, body in (*_pairs(flat), *inner) if kind == 3]
    return set.intersection(*named) if named else None


def _pairs(flat: list[Any]) -> list[tuple[Any, Any]]:
    return list(zip(flat[::2], flat[1::2], strict=True))


def _parts(token: str) -> list[Any]:
    raw = base64.b64decode(token.removeprefix(_PREFIX), validate=True)
    try:
        nonce, location, flat, tail = unpackb(raw, strict_map_key=False)
        _pairs(flat)
    except (TypeError, ValueError):
        raise ValueError("macaroon decode: msgpack: invalid code") from None
    return [nonce, location, flat, tail]


def ends(token: str) -> float:
    """Give when a token ends, in seconds since 1970; one that cannot be decoded has ended."""
    try:
        shown = decoded(token)["caveats"]
    except ValueError:
        return 0.0
    return min((one["body"]["not_after"] for one in shown if one["type"] == "ValidityWindow"), default=float("inf"))


def _caveat(kind: int, body: list[Any]) -> dict[str, Any]:
    match kind:
        case 0:
            return {"type": "Organization", "body": {"id": body[0], "mask": _actions(body[1])}}
        case 3:
            return {"type": "Apps", "body": {"apps": {str(app): _actions(mask) for app, mask in body[0].items()}}}
        case 4:
            return {"type": "ValidityWindow", "body": {"not_before": body[0], "not_after": body[1]}}
        case 11:
            key, ticket = (base64.b64encode(part).decode() for part in body[1:])
            return {"type": "3P", "body": {"Location": body[0], "VerifierKey": key, "Ticket": ticket}}
        case 13:
            flat = body[0]
            inner = [_caveat(*pair) for pair in _pairs(flat)]
            return {"type": "IfPresent", "body": {"ifs": inner, "else": _actions(body[1])}}
        case _:
            raise ValueError("a caveat that the stand-in does not know")


def _actions(mask: int) -> str:
    return "".join(letter for bit, letter in enumerate("rwcdC") if mask & 1 << bit)
