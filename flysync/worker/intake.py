"""What a job asks for, checked before anything else looks at it: a message never shows what a field holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flysync.errors import UsageError
from flysync.model.core import ProjectId, SecretName, secret_name

if TYPE_CHECKING:
    from flysync.ports import Job

#: The most characters of a project's id and of a credential's name.
_PROJECT_LENGTH = 256
_NAME_LENGTH = 128
#: How JSON calls what Python has made of it; a boolean is a number, too.
_TYPES = {bool: "a boolean", int: "a number", float: "a number", list: "an array", dict: "an object"}


def requested(job: Job) -> tuple[ProjectId, SecretName]:
    """
    Give the project and the credential that a job is about.

    Raises:
        UsageError: a field is missing, or does not hold what it has to.
        InvalidCredential: no credential can have this name.
    """
    project = _text("projectId", job.project, _PROJECT_LENGTH)
    name = secret_name(_text("credentialName", job.credential, _NAME_LENGTH))
    if job.has_bad_value:
        raise UsageError("the job's credentialValue is not a string")
    return ProjectId(project), name


def _text(field: str, given: object, length: int) -> str:
    if given is None or given == "":
        raise UsageError(f"the job's {field} is missing or empty")
    if not isinstance(given, str):
        raise UsageError(f"the job's {field} is {_TYPES.get(type(given), 'something else')}, not a string")
    if len(given) > length:
        raise UsageError(f"the job's {field} has {len(given):,} characters; the limit is {length}")
    if "\0" in given or any("\ud800" <= character <= "\udfff" for character in given):
        raise UsageError(f"the job's {field} contains a character that no database can store")
    return given
