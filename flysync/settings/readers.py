"""
The readers of settings: each gives the value of a text, or raises ValueError.

The error's text continues a sentence that starts with the setting's name, and never shows the value.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from flysync.secret import Secret

_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def plain(text: str) -> str:
    """Accept any printable text."""
    if not text.isprintable():
        raise ValueError("contains a control character, or is not UTF-8")
    return text


def flag(text: str) -> bool:
    """Accept yes or no."""
    if (value := _WORDS.get(text.strip().lower())) is None:
        raise ValueError("is neither true nor false (1, true, yes, on, 0, false, no, off)")
    return value


def days(text: str) -> int:
    """Accept a number of days."""
    if not re.fullmatch(r"[1-9][0-9]{0,4}", text):
        raise ValueError("is not a number of days from 1 to 99999")
    return int(text)


def url(text: str) -> str:
    """Accept an HTTP address."""
    try:
        parts = urlsplit(text)
        is_known = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:  # its text may show the value
        is_known = False
    if not is_known or not re.fullmatch(r"[!-~]+", text):
        raise ValueError("is not an http:// or https:// address")
    return text


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


def sha256(text: str) -> str:
    """Accept a SHA-256 sum."""
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        raise ValueError("is not a SHA-256 sum (64 hexadecimal digits)")
    return text.lower()


def row_security(text: str) -> str:
    """Take the word for what to do where row level security may hide rows."""
    if text not in {"refuse", "complete"}:
        raise ValueError('is neither "refuse" nor "complete"')
    return text


def value_source(text: str) -> str:
    """Accept a source of values."""
    if text not in {"database", "caller"}:
        raise ValueError('is neither "database" nor "caller"')
    return text


def queue(text: str) -> str:
    """Accept the name of a BullMQ queue."""
    if ":" in text:
        raise ValueError("contains a colon, and a queue's name cannot")
    return plain(text)


def key(text: str) -> Secret:
    """Accept a key without whitespace."""
    if not re.fullmatch(r"[!-~]+", text):
        raise ValueError("contains whitespace, a line break or a character that is not ASCII")
    return Secret(text)


def fly_token(text: str) -> Secret:
    """Accept a Fly token; an organisation's is `FlyV1 fm2_…`, with one space."""
    key(text.removeprefix("FlyV1 "))
    return Secret(text)


def database(text: str) -> Secret:
    """Accept what libpq calls a connection string."""
    if not re.match(r"postgres(ql)?://|\s*\w+\s*=", text):
        raise ValueError("is neither a postgresql:// address nor a list of key=value")
    return Secret(plain(text))


def redis(text: str) -> Secret:
    """Accept a Redis address."""
    if not re.match(r"(rediss?|unix)://", text):
        raise ValueError("is not a redis:// address")
    return key(text)
