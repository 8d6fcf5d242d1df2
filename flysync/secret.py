"""
The one type that holds a value, and what may be done with it.

A `Secret` shows itself to nobody: not in text, logs, JSON, pickles or tracebacks. `reveal()` is called under
`adapters/` only (a test holds it).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import shlex
from typing import TYPE_CHECKING, NoReturn, final
from urllib.parse import quote
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: What is shown in the place of a value.
MASK = "****"

#: A piece shorter than this is not searched in foreign text: it would be found everywhere.
_MIN_REDACTED = 4
#: A token of Fly's, in whatever form: those that are narrowed for a step nobody knows by heart.
_FLY_TOKEN = re.compile(r"fm(2|1r|1a)_[\w+/=%\\-]+")


@final
class Secret:
    """A value that hides itself; equal to another one in constant time."""

    __slots__ = ("__weakref__", "_value")

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the value; only for the last step before it leaves the process."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret({MASK})"

    def __str__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_encoded(self._value), _encoded(other._value))

    __hash__ = None  # type: ignore[assignment]

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        """Refuse to be pickled or copied: a copy is one more place to look after."""
        raise TypeError("a Secret cannot be pickled or copied")

    @property
    def size_bytes(self) -> int:
        """The length in UTF-8, in bytes."""
        return len(_encoded(self._value))

    def problem(self) -> str | None:
        """Say why no process could be given this value as it is, or nothing."""
        if "\0" in self._value:
            return "holds a NUL character, which no environment can carry"
        try:
            self._value.encode()
        except UnicodeEncodeError:
            return "is not valid UTF-8"
        return None

    def matches(self, pattern: str) -> bool:
        """Tell whether all of the value is as a regular expression says."""
        return re.fullmatch(pattern, self._value) is not None

    def fingerprint(self, key: Secret, *scope: str) -> str:
        """
        Give the HMAC-SHA256 of *scope* and the value under *key*, in hexadecimal.

        It tells "same value" within one scope (app and name), and nothing without the key.
        """
        message = "\0".join((*scope, self._value))
        return hmac.new(_encoded(key._value), _encoded(message), hashlib.sha256).hexdigest()

    def encodings(self) -> Iterator[str]:
        """Give the forms in which the value can turn up in foreign text."""
        value = self._value
        raw = _encoded(value)
        yield value
        yield json.dumps(value)[1:-1]
        yield json.dumps(value, ensure_ascii=False)[1:-1]
        yield repr(value)[1:-1]
        yield shlex.quote(value)
        yield quote(raw, safe="")
        yield base64.b64encode(raw).decode("ascii")
        yield base64.urlsafe_b64encode(raw).decode("ascii")
        yield from value.splitlines()


#: Secrets that no setting has, for as long as somebody holds them.
_HELD: WeakValueDictionary[int, Secret] = WeakValueDictionary()


def masked(secret: Secret) -> Secret:
    """Give *secret*, which `redact` masks from now on, until nobody has it any more."""
    _HELD[id(secret)] = secret
    return secret


def redact(text: str, secrets: Iterable[Secret]) -> str:
    """
    Put a mask over every form of *secrets* and of those that are `masked` in foreign *text*, and over every macaroon.

    Only for what others wrote; our own texts hold no values to begin with.
    """
    pieces = {
        piece
        for secret in (*secrets, *_HELD.values())
        for piece in secret.encodings()
        if len(piece.strip()) >= _MIN_REDACTED
    }
    for piece in sorted(pieces, key=len, reverse=True):
        text = text.replace(piece, MASK)
    return _FLY_TOKEN.sub(MASK, text)


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
