"""
The names that callers give, checked before anything else looks at them.

What is wrong is told by its length and place, and never repeated: somebody may have put a value in a name's place.
"""

from __future__ import annotations

import re

from flysync.errors import InvalidCredential, UsageError
from flysync.model.core import ProjectId, SecretName

#: What Fly accepts (flyctl-transcripts: "1A" and "A-B" are refused by the server).
SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: What GitHub, GitLab, Fly, Daytona, Slack, AWS, Google, Stripe, npm and others give out, by their documentation; and
#: an address with a password. As narrow as can be: what it takes for a value cannot be a name.
_TOKEN = re.compile(
    r"gh[opsur]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9]{22}_\w+|glpat-[\w.-]{20,}"
    r"|(FlyV1 )?(fm[12][ar]?|fo1)_[\w+/=,-]{16,}|dtn_[0-9a-f]{32,}|xox[a-z]-[\w-]{10,}"
    r"|A[KS]IA[A-Z2-7]{16}|AIza[\w-]{35}|ya29\.[\w-]{20,}|eyJ[\w-]{16,}(\..*)?"
    r"|(sk|pk|rk)[_-](live|test|proj|ant)[_-](?=.*\d)[\w-]{16,}|sk-[A-Za-z0-9]{40,}|whsec_[A-Za-z0-9]{24,}"
    r"|SG\.[\w-]{16,}\.[\w-]{16,}|dop_v1_[0-9a-f]{64}|shp(at|ca|pa|ss)_[0-9a-fA-F]{32}|sbp_[0-9a-f]{40}"
    r"|https://hooks\.slack\.com/.*|(?=.*[a-z])(?=.*[A-Z])(?=.*\d)(?=.*[/+])[A-Za-z0-9/+]{40}"
    r"|npm_[A-Za-z0-9]{36}|hf_[A-Za-z0-9]{30,}|-----BEGIN .*|\w+://[^@]*:[^@]*@.*",
    re.DOTALL,
)
#: Chance mixes letters and digits, and people do not: one long word that changes between them often.
_RANDOM = re.compile(r"(?=.{20})([A-Za-z]+\d+){4,}[A-Za-z]*")
#: What may be shown of a character that no name can have.
_SHOWN = {" ": "a space", "=": "an equals sign", "-": "a hyphen", ".": "a dot", "\n": "a line break", ",": "a comma"}
_OTHER = "not a letter, digit or underscore"
#: Nobody's id or name is longer; somebody may have put a whole file in its place.
_LONGEST_PROJECT, _LONGEST_NAME = 256, 128


def secret_name(text: str, what: str = "the credential's name") -> SecretName:
    """
    Give *text* as the name of a secret; *what* it is.

    Raises:
        InvalidCredential: Fly would refuse the name, or it looks like a value; it is not repeated.
    """
    if problem := name_problem(text) or _value_problem(text, _TOKEN, _RANDOM):
        hint = "give one name, of letters, digits and underscores, and no digit first"
        raise InvalidCredential(f"{what} {problem}", hint=hint)
    return SecretName(text)


def name_problem(text: str) -> str:
    """Say why Fly would refuse a name, without repeating it; nothing where it would not."""
    if SECRET_NAME.fullmatch(text) or not 0 < len(text) <= _LONGEST_NAME:
        return _length_problem(text, _LONGEST_NAME)
    wrong = re.search(r"[^A-Za-z0-9_]", text)
    at, kind = (1, "a digit") if wrong is None else (wrong.start() + 1, _SHOWN.get(wrong[0], _OTHER))
    return f"({len(text)} characters) is not valid: character {at} is {kind}"


def _length_problem(text: str, most: int) -> str:
    if not text:
        return "is empty"
    return f"has {len(text):,} characters; the limit is {most}" if len(text) > most else ""


def _value_problem(text: str, *forms: re.Pattern[str]) -> str:
    like = any(form.fullmatch(text) for form in forms)
    return f"({len(text)} characters) looks like a key or a token" if like else ""


def project_id(text: str, what: str = "the project's id") -> ProjectId:
    """Give *text* as the id of a project; UsageError, which says *what* it is: no project can have it."""
    problem = _length_problem(text, _LONGEST_PROJECT)
    if re.search("[\0\ud800-\udfff]", text):
        problem = problem or "contains a character that no database can store"
    if problem := problem or _value_problem(text, _TOKEN):  # an id may well be made by chance
        raise UsageError(f"{what} {problem}", hint="give the platform's id of it: --project ID")
    return ProjectId(text)
