from __future__ import annotations

import base64
import copy
import json
import logging
import pickle
import shlex
import traceback
from urllib.parse import quote

import pytest

from flysync.secret import MASK, Secret, masked, redact

CANARY = "canary-7f3aé?>#\"'\n$x"


def shown(secret: Secret) -> list[str]:
    return [str(secret), repr(secret), f"{secret}", f"{secret:>40}", f"{secret!r}", "%s" % secret, repr([secret])]


def test_a_secret_shows_itself_in_no_text() -> None:
    """Every way to make text of a secret gives the mask."""
    texts = shown(Secret(CANARY))

    assert [text for text in texts if "canary" in text or MASK not in text] == []


@pytest.mark.parametrize("make_copy", [pickle.dumps, json.dumps, copy.copy, copy.deepcopy])
def test_a_secret_cannot_be_copied(make_copy: object) -> None:
    """Pickle, JSON and copy refuse, and their error does not show the value."""
    assert callable(make_copy)
    with pytest.raises(TypeError) as caught:
        make_copy(Secret(CANARY))

    assert "canary" not in "".join(traceback.format_exception(caught.value))


def test_a_logged_secret_is_a_mask(caplog: pytest.LogCaptureFixture) -> None:
    """A secret given to a logger is not written."""
    logging.getLogger("flysync").warning("value %s", Secret(CANARY))

    assert f"value {MASK}" == caplog.messages[0]


def test_secrets_with_the_same_value_are_equal_and_unhashable() -> None:
    """Equality is that of the values; a secret is no key of a dict."""
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    with pytest.raises(TypeError):
        hash(Secret("a"))


def test_a_fingerprint_tells_value_scope_and_key_apart() -> None:
    """Only the same value in the same scope under the same key has the same fingerprint."""
    key = Secret("k")
    prints = {
        Secret("v").fingerprint(key, "app", "A"),
        Secret("w").fingerprint(key, "app", "A"),
        Secret("v").fingerprint(key, "app", "B"),
        Secret("v").fingerprint(key, "ap", "pA"),
        Secret("v").fingerprint(Secret("l"), "app", "A"),
    }

    assert 5 == len(prints)
    assert Secret("v").fingerprint(key, "app", "A") in prints


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("plain", None),
        ("", None),
        ("a\0b", "holds a NUL character, which no environment can carry"),
        ("\udc80", "is not valid UTF-8"),
    ],
)
def test_a_flaw_says_why_a_value_cannot_travel(value: str, problem: str | None) -> None:
    """NUL and lone surrogates are found before anything is sent."""
    assert problem == Secret(value).problem()


def test_the_size_is_in_bytes() -> None:
    """A letter of two bytes counts twice."""
    assert 3 == Secret("aé").size_bytes


FORMS = [
    CANARY,
    json.dumps(CANARY)[1:-1],
    json.dumps(CANARY, ensure_ascii=False)[1:-1],
    repr(CANARY)[1:-1],
    shlex.quote(CANARY),
    quote(CANARY, safe=""),
    base64.b64encode(CANARY.encode()).decode(),
    base64.urlsafe_b64encode(CANARY.encode()).decode(),
    *CANARY.splitlines(),
]


def test_redaction_knows_what_no_setting_has() -> None:
    """For as long as somebody holds it: nothing is kept for that."""
    secret, other = masked(Secret(CANARY)), masked(Secret("another"))
    held = redact(f"before {CANARY} after another", [])
    del secret

    assert (f"before {MASK} after {MASK}", CANARY) == (held, redact(CANARY, []))
    assert other.size_bytes


@pytest.mark.parametrize("form", dict.fromkeys(FORMS))
def test_redaction_covers_every_form(form: str) -> None:
    """Whole, line by line, in base64, JSON, a URL or shell quotes: the value is masked in foreign text."""
    cleaned = redact(f"before {form} after", [Secret(CANARY)])

    assert form not in cleaned or len(form.strip()) < 4
    assert cleaned.startswith("before ")
