"""
The readers of settings: each gives the value of a text, or raises ValueError.

The error's text continues a sentence that starts with the setting's name, and never shows the value.
"""

from __future__ import annotations

import re
import shlex
import shutil
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flysync.model import macaroon
from flysync.model.core import APP_NAME
from flysync.model.names import SECRET_NAME
from flysync.secret import Secret
from flysync.settings import database_url, redis_address

if TYPE_CHECKING:
    from collections.abc import Callable

#: http, but to this machine: whoever is in between can read it.
PLAIN_HTTP = re.compile(r"(?i)http://(?!([^@/]*@)?(localhost|127(\.[0-9]+){3}|\[::1\])(:[0-9]+)?(/|$))")
#: A variable, or a whole part of an address that is a variable or a placeholder. (`$user` is one of Postgres' own.)
_UNFILLED = re.compile(r"\$\{\w|(?<![^:/@=\s])(\$[A-Z_][A-Z0-9_]*|<[^<>]*>)(?![^:/@?&\s])")


def plain(text: str, longest: int = 1_000) -> str:
    """Accept any printable text that is not endless."""
    if len(text) > longest:
        raise ValueError(f"has more than {longest:,} characters")
    if not text.isprintable():
        raise ValueError("contains a control character, or is not UTF-8")
    return text


def name(text: str) -> str:
    """Accept the name of something."""
    return filled(plain(text))


def schema(text: str) -> str:
    """Accept the name of one schema, none of Postgres' own."""
    if not re.fullmatch(rb'(?!pg_)[^,"]{1,63}', name(text).encode()):
        raise ValueError('is not the name of one schema (at most 63 bytes, without commas and quotes, not "pg_...")')
    return text


def command(text: str) -> str:
    """Accept a command whose program is there; it is split as a shell would."""
    try:
        words = shlex.split(plain(text))
    except ValueError:  # of shlex, or of what is not plain text
        words = []
    if not words:
        raise ValueError("is not a command in plain text, with its quotes closed")
    if "=" in words[0]:  # and what is behind it may be a key
        raise ValueError("begins with a variable, and is run without a shell: set that in the environment")
    if shutil.which(words[0]) is None:
        raise ValueError(f"names a program that is not there, or may not be run: {words[0]}")
    return text


def flag(text: str) -> bool:
    """Accept yes or no."""
    if (value := redis_address.FLAGS.get(text.strip().lower())) is None:
        raise ValueError("is neither true nor false (1, true, yes, on, 0, false, no, off)")
    return value


def days(text: str) -> int:
    """Accept a number of days."""
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text):
        raise ValueError("is not a number of days from 1 to 99999")
    return int(text)


def url(text: str) -> str:
    """Accept an HTTP address."""
    filled(text)
    try:
        parts = urlsplit(text)
        is_known = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # its text may show the value
        is_known = False
    if not is_known or not re.fullmatch(r"[!-~]+", text):
        raise ValueError("is not an http:// or https:// address")
    return text


def installer(text: str) -> str:
    """Accept the address of what is run in the end: nobody in between may replace it."""
    if PLAIN_HTTP.match(text):
        raise ValueError("is http: anybody in between could replace what is run, so it has to be https")
    return script_url(text)


def script_url(text: str) -> str:
    """Accept an address that is used in a sandbox's script."""
    if not re.fullmatch(r"[A-Za-z0-9_@%+=:,./{}-]+", url(text)):
        raise ValueError("contains a character that has a meaning to a shell")
    return text.rstrip("/")


def base_url(text: str) -> str:
    """Accept an address that paths are added to."""
    return url(text).rstrip("/")


def version(text: str) -> str:
    """Accept a version of flyctl."""
    if not re.fullmatch(r"v?[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.]+)?", text):
        raise ValueError("is not a version such as 0.4.87")
    return text.removeprefix("v")


def sums(text: str) -> tuple[str, ...]:
    """Accept SHA-256 sums, also as GitHub writes them (`sha256:...`)."""
    words = [word.removeprefix("sha256:") for word in re.split(r"[,\s]+", text) if word]
    if not words or not all(re.fullmatch(r"[0-9a-fA-F]{64}", word) for word in words):
        raise ValueError("is not one or more SHA-256 sums (64 hexadecimal digits each, separated by commas)")
    return tuple(word.lower() for word in words)


def one_of(*words: str) -> Callable[[str], str]:
    """Accept one of these words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError("is not " + " or ".join(f'"{word}"' for word in words))
        return text

    return read


def _patterns(text: str, *, of: re.Pattern[str]) -> tuple[str, ...]:
    """Accept patterns with commas or spaces between them; each has to match a name that there could be."""
    if not (found := tuple(re.findall(r"[^\s,]+", text))):
        raise ValueError("is set but empty: give it a value, or remove it")
    for place, pattern in enumerate(found, 1):
        least = pattern.replace("?", "a")
        if not any(of.fullmatch(re.sub(r"^\*+", first, least).replace("*", "")) for first in ("", "a")):
            raise ValueError(f"can match nothing with its pattern {place}: it takes parts of names, *, ? and commas")
    return found


app_patterns, name_patterns = partial(_patterns, of=APP_NAME), partial(_patterns, of=SECRET_NAME)


def queue(text: str) -> str:
    """Accept the name of a BullMQ queue."""
    if ":" in text:
        raise ValueError("contains a colon, and a queue's name cannot")
    return name(text)


def filled(text: str) -> str:
    """Accept what has no quotes around it, and nothing that is to be filled in; docker's --env-file keeps both."""
    if text.lstrip()[:1] in {"'", '"'}:
        raise ValueError("is in quotes, which would be part of it: remove them")
    if _UNFILLED.search(text):
        raise ValueError("contains a variable or placeholder that was not filled in (a literal $ is %24, < is %3C)")
    return text


def api_key(text: str) -> Secret:
    """Accept a key: none has a quote, which docker's --env-file keeps, nor what is a part of `${…}` or `<…>`."""
    if re.search(r"[\"'`$<>]", text):
        raise ValueError("contains a quote, $, < or >: the value alone is needed, without quotes and variables")
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("contains whitespace, a line break or a character that is not ASCII")
    return Secret(text)


def fly_token(text: str) -> Secret:
    """Accept a Fly token; an organization's is `FlyV1 fm2_…`, with one space, and must be whole to be narrowed."""
    api_key(text.removeprefix("FlyV1 "))
    macaroon.described(plain(text, 65_536), now=0)
    return Secret(text)


def database(text: str) -> Secret:
    """Accept what libpq calls a connection string, and what others write in its place."""
    database_url.read(filled(plain(text, 10_000)))
    return Secret(text)


def redis(text: str) -> Secret:
    """Accept a Redis address."""
    return Secret(redis_address.read(filled(text)))
