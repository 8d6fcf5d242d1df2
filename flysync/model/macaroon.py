"""
Fly's tokens: what one says of itself, and how it is narrowed. Offline, and no error shows a piece of one.

Most are macaroons: base64 of MessagePack `[nonce, location, caveats, tail]`, the caveats as type, body, type, body, ...
Whoever holds one can add caveats, and nobody can take one off again (read: superfly/macaroon v0.3.0; results compared
with those of `flyctl tokens attenuate`). Any other token (OAuth) says nothing, and stays as it is.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from flysync.model.fly import Token, TokenKind

if TYPE_CHECKING:
    from collections.abc import Sequence

#: What permits anything; tokens from elsewhere discharge caveats of these (read: flyio/flyio.go).
_PERMITS = "https://api.fly.io/v1"
#: What macaroons begin with, and what a header looks like that holds nothing else (read: format.go).
_LABELS = ("fm2", "fm1r", "fm1a")
ALL_ARE = r"(FlyV1 )?(fm2|fm1r|fm1a)_[^,]+(,(fm2|fm1r|fm1a)_[^,]+)*"
#: Types of caveats (read: caveat.go). Of actions: all, and reading.
_APPS, _WINDOW, _LOGIN, _IF_PRESENT = 3, 4, 11, 13
_ALL, _READ = 31, 1
#: A later end, in Unix seconds, is beyond any calendar, and as good as none.
_LATEST = 253_402_300_800


class _Macaroon(NamedTuple):
    label: str
    permits: bool
    #: The bytes before the caveats and those of the caveats, their types and bodies, and the key for one more.
    head: bytes
    raw: bytes
    caveats: Sequence[tuple[Any, Any]]
    tail: bytes


def narrowed(header: str, *, until: int, app_id: int | None = None) -> str:
    """
    Give *header* with tokens that end at *until* (Unix seconds) and, with *app_id*, serve no other app.

    They permit then what a deploy token does: all of the app, and to read its organization. What `described` refuses is
    refused.
    """
    more: list[list[Any]] = [[_WINDOW, [0, until]]]
    if app_id is not None:
        more.append([_IF_PRESENT, [[_APPS, [{app_id: _ALL}]], _READ]])
    found = _read(header)
    if app_id is not None and not all(one for _, one in found):
        raise ValueError("cannot be narrowed to an app: it is an OAuth token, or contains one")
    tokens = [_with(one, more) if one and one.permits else text for text, one in found]
    return ("FlyV1 " if header.startswith("FlyV1 ") else "") + ",".join(tokens)


def _with(one: _Macaroon, more: Sequence[list[Any]]) -> str:
    """Add caveats; what is there is kept byte by byte, because it need not be as one would write it now."""
    from msgpack import Packer

    packer = Packer()
    count, raw, tail = packer.pack_array_header(2 * (len(one.caveats) + len(more))), one.raw, one.tail
    for caveat in more:
        tail = hmac.digest(tail, packer.pack(caveat), "sha256")
        raw += b"".join(map(packer.pack, caveat))
    return f"{one.label}_{base64.b64encode(one.head + count + raw + packer.pack(tail)).decode()}"


def described(header: str, *, now: float) -> Token:
    """
    Give what the tokens of *header* say of themselves; *now* is in Unix seconds.

    Raises:
        ValueError: a macaroon is damaged, or they permit nothing.
    """
    found = _read(header)
    permits = [one for _, one in found if one and one.permits]
    kinds: list[list[object]] = []
    end = _LATEST
    for one in permits:
        kinds.append([kind for kind, _ in one.caveats])
        for caveat in one.caveats:
            match caveat:
                case (4, [_, int(not_after)]):
                    end = min(end, max(not_after, 0))
                case (13, [[*inner], _]):
                    kinds[-1] += inner[::2]
                case _:
                    pass
    own = TokenKind.ORG if permits else TokenKind.OAUTH
    if permits and all(_APPS in its for its in kinds):
        own = TokenKind.DEPLOY
    elif any(_LOGIN in its for its in kinds) and all(one is None or one.permits for _, one in found):
        own = TokenKind.PERSONAL
    token = Token(kind=own, can_be_narrowed=all(one for _, one in found))
    if end == _LATEST:
        return token
    return replace(token, expires_at=datetime.fromtimestamp(end, UTC), left_s=end - now)


def _read(header: str) -> list[tuple[str, _Macaroon | None]]:
    """Give the tokens of a header, and what they are: nothing for one that is not a macaroon."""
    texts = header.removeprefix("FlyV1 ").split(",")
    found = [(text, _macaroon(text) if text.partition("_")[0] in _LABELS else None) for text in texts]
    if any(one for _, one in found) and not any(one and one.permits for _, one in found):
        raise ValueError("permits nothing: the token that belongs with it is missing")
    return found


def _macaroon(text: str) -> _Macaroon:
    from msgpack import Unpacker, UnpackException

    label, _, encoded = text.partition("_")
    unpacker = Unpacker(max_buffer_size=1 << 20, strict_map_key=False, unicode_errors="replace")
    try:
        raw = base64.b64decode(encoded, validate=True)
        unpacker.feed(raw)
        parts = unpacker.read_array_header()
        unpacker.skip()
        permits, at = unpacker.unpack() == _PERMITS, unpacker.tell()
        count, start = unpacker.read_array_header(), unpacker.tell()
        flat, end = [unpacker.unpack() for _ in range(count)], unpacker.tell()
        tail = unpacker.unpack()
        if (parts, unpacker.tell()) == (4, len(raw)) and isinstance(tail, bytes):
            caveats = list(zip(flat[::2], flat[1::2], strict=True))
            return _Macaroon(label, permits, raw[:at], raw[start:end], caveats, tail)
    except (ValueError, TypeError, UnpackException):
        pass
    raise ValueError("begins like a macaroon but is not a valid one: part of it is missing or was changed")
