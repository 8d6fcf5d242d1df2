from __future__ import annotations

import pytest
from flyctl_scripted import FOUND, GONE, Scripted, flyctl, told

from flysync import errors
from flysync.model.core import AppName, SecretName
from flysync.ports import AnswerLost, FlyctlMissing

INSTALLED = '0 {"Version": "0.4.87"}'


@pytest.mark.parametrize(
    "answers",
    [
        [told(0, INSTALLED)],
        [told(0, '1 {"Version": "0.4.5"}\n2 what\n3 []\n4 {"Version": 1}\n5 {"Version": "x"}'), told(0, INSTALLED)],
        [told(0, f'1 {"[" * 200_000}\n2 {{"Version": "{"9" * 5000}.0.0"}}\n3 {{}}'), told(0, INSTALLED)],
        [AnswerLost(GONE), told(0, FOUND)],
        [told(0), AnswerLost(GONE), told(0, INSTALLED)],
    ],
)
async def test_flyctl_is_found_or_installed(answers: list[str | Exception]) -> None:
    """One that is too old, or says nothing that is understood, does not count."""
    sandbox = Scripted(*answers)
    found = flyctl(sandbox)

    assert "0.4.87" == (await found.prepare()).version
    assert "0.4.87" == (await found.prepare()).version
    assert [] == sandbox.answers


async def test_what_a_set_has_found_out_is_not_looked_for_again() -> None:
    """That there is no flyctl, or only one that is too old: it is installed at once."""
    for looked in ("", '1 {"Version": "0.4.5"}'):
        sandbox = Scripted((told(1, looked), told(999)), told(0, INSTALLED), told(0))
        found = flyctl(sandbox)
        with pytest.raises(FlyctlMissing):
            await found.secrets(AppName("acme")).unset([SecretName("A")])
        made = await found.prepare()
        await found.secrets(AppName("acme")).unset([SecretName("A")])

        assert ["1-unset", "2-install", "3-unset"] == sandbox.steps
        assert (made, "0.4.5" if looked else None) == (found.found, made.too_old)


@pytest.mark.parametrize(
    ("code", "text", "word"),
    [
        (65, "", r"~/\.fly/bin"),
        (64, "", "sha256sum"),
        (67, "", "installer"),
        (69, "", "curl"),
        (1, "", "0.4.87 could not"),
        (0, "", "does not run"),
        (0, '0 {"Version": "0.4.5"}', "is 0.4.5"),
        (0, '0 {"Version": "' + "9" * 5000 + '.0.0"}', "does not run"),
    ],
)
async def test_an_installation_that_fails_says_why(code: int, text: str, word: str) -> None:
    """Where it failed, after three attempts."""
    sandbox = Scripted(told(0), *[told(code, text)] * 3)
    with pytest.raises(errors.FlyctlFailed, match=word):
        await flyctl(sandbox).prepare()

    assert ["1-look", "2-install", "3-install", "4-install"][: 4 if code else 2] == sandbox.steps
