"""What may have been meant by a name or an id that nobody knows. Pure."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

from flysync.errors import ProjectNotFound

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from flysync.model.core import ProjectId, SecretName

#: More projects than these that have a name say nothing about which one was meant.
MOST_PROJECTS = 3


def similar(text: str, known: Iterable[str]) -> list[str]:
    """Give up to three of *known* that are similar to *text*; one that differs only by case is the only one."""
    folded = {one.casefold(): one for one in sorted(known, reverse=True)}
    if same := folded.get(text.casefold()):
        return [same]
    # 0.75 is one wrong letter in four, and takes 75 ms for a thousand ids of 36 (measured).
    return [folded[one] for one in get_close_matches(text.casefold(), folded, n=3, cutoff=0.75)]


def did_you_mean(text: str, known: Iterable[str]) -> str | None:
    """Ask for what may have been meant by *text*; nothing where nothing is near."""
    near = similar(text, known)
    return f"did you mean {' or '.join(near)}?" if near else None


def project_not_found(project: ProjectId, is_what: str, known: Iterable[str]) -> ProjectNotFound:
    """Give the error of a project that *is_what*; its hint names similar ids among *known*."""
    asked = did_you_mean(project, known)
    shown = project if project.split() == [project] else f'"{project}"'
    hint = asked and f"{asked} `flysync status` lists all that are known"
    return ProjectNotFound(f"project {shown} {is_what}", hint=hint)


def credential_hint(
    name: SecretName, project: ProjectId, known: Collection[str], elsewhere: Collection[str]
) -> str | None:
    """
    Say where a credential may be that *project* does not have: under a name of *known*, or in a project *elsewhere*.

    Where many projects have one of this name, only those with a similar id are named. One that *project* has needs no
    hint.
    """
    if name in known:
        return None
    projects = list(elsewhere) if len(elsewhere) <= MOST_PROJECTS else similar(project, elsewhere)
    hints = [did_you_mean(name, known)]
    if projects:
        whose = f"project {projects[0]} has" if len(projects) == 1 else f"projects {', '.join(projects)} have"
        hints.append(f"{whose} a credential {name}: is {project} the right project?")
    return " ".join(filter(None, hints)) or None


def nearest_run(start: str, known: Iterable[str]) -> str | None:
    """Give the run whose id begins as *start* does, but for one typo; nothing where there is none, or more than one."""
    beginnings = {run[: len(start)]: run for run in known}
    near = get_close_matches(start, beginnings, n=2, cutoff=1 - 1.01 / len(start))
    return beginnings[near[0]] if len(near) == 1 else None
