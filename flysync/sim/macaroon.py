"""
Fly's tokens (macaroons): made for tests, and decoded as `flyctl tokens debug` does; nobody checks their signature.

Shapes were measured with superfly/macaroon v0.3.0, which flyctl ad0172fac is built with: MessagePack, base64 behind
`fm2_`. Of the caveats those are known that Fly's own tokens have.
"""

from __future__ import annotations

import base64
import os
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Where tokens come from that permit something, and those that discharge their caveats.
PERMITS = "https://api.fly.io/v1"
DISCHARGES = "https://api.fly.io/aaa/v1"

_ALL = 31
_PREFIX = "fm2_"


def organization(number: int) -> list[Any]:
    """Give the caveat that limits a token to one organisation."""
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
    raw = _packed([[b"kid", os.urandom(16), False], location, flat, os.urandom(32)])
    return _PREFIX + base64.b64encode(raw).decode()


def decoded(token: str) -> dict[str, Any]:
    """
    Give what flyctl shows of a token.

    Raises:
        ValueError: it is none, or has been cut.
    """
    raw = base64.b64decode(token.removeprefix(_PREFIX), validate=True)
    try:
        (_, location, flat, _) = _read(BytesIO(raw))
        return {"location": location, "caveats": [_caveat(*pair) for pair in zip(flat[::2], flat[1::2], strict=True)]}
    except (IndexError, TypeError, ValueError):
        raise ValueError("macaroon decode: msgpack: invalid code") from None


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
            inner = [_caveat(*pair) for pair in zip(flat[::2], flat[1::2], strict=True)]
            return {"type": "IfPresent", "body": {"ifs": inner, "else": _actions(body[1])}}
        case _:
            raise ValueError("a caveat that the stand-in does not know")


def _actions(mask: int) -> str:
    return "".join(letter for bit, letter in enumerate("rwcdC") if mask & 1 << bit)


def _packed(data: Any) -> bytes:
    match data:
        case bool():
            return b"\xc3" if data else b"\xc2"
        case int():
            return bytes([data]) if data < 128 else b"\xcf" + data.to_bytes(8)
        case bytes():
            return b"\xc4" + bytes([len(data)]) + data
        case str():
            return bytes([0xA0 | len(data)]) + data.encode()
        case list():
            return bytes([0x90 | len(data)]) + b"".join(map(_packed, data))
        case dict():
            pairs = (_packed(key) + _packed(value) for key, value in data.items())
            return bytes([0x80 | len(data)]) + b"".join(pairs)
        case _:
            raise TypeError(type(data).__name__)


def _read(raw: BytesIO) -> Any:
    code = _take(raw, 1)[0]
    if code < 0x80:
        return code
    if code & 0xF0 == 0x80:
        return {_read(raw): _read(raw) for _ in range(code & 15)}
    if code & 0xF0 == 0x90:
        return [_read(raw) for _ in range(code & 15)]
    if code & 0xE0 == 0xA0:
        return _take(raw, code & 31).decode()
    if code in (0xC2, 0xC3):
        return code == 0xC3
    if code == 0xC4:
        return _take(raw, _take(raw, 1)[0])
    if 0xCC <= code <= 0xCF:
        return int.from_bytes(_take(raw, 1 << (code - 0xCC)))
    raise ValueError("invalid code")


def _take(raw: BytesIO, length: int) -> bytes:
    found = raw.read(length)
    if len(found) < length:
        raise ValueError("EOF")
    return found
