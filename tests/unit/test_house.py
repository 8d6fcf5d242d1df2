from __future__ import annotations

import ast
import pydoc
import re
import shutil
import subprocess
from pathlib import Path

import pytest

import flysync
from flysync import errors
from flysync.handlers.compare import Live
from flysync.handlers.status import CredentialCondition
from flysync.model.core import State

ROOT = Path(flysync.__file__).parent
MODULES = sorted(ROOT.rglob("*.py"))


def test_values_are_revealed_only_at_the_edge() -> None:
    """`.reveal(` stands under adapters/, and nowhere else in the package."""
    places = {path.relative_to(ROOT).parts[0] for path in MODULES if ".reveal(" in path.read_text()}

    assert {"adapters"} == places


def test_no_decision_hangs_on_the_clock_of_this_machine() -> None:
    """A clock that is a day off spoils ids and nothing else: all other times are Postgres', or count from a start."""
    reads = re.compile(r"\b(time\.time(_ns)?|datetime\.(now|utcnow|today)|date\.today|(local|gm|c)time)\(")
    places = {str(path.relative_to(ROOT)) for path in MODULES if reads.search(path.read_text())}

    assert {"adapters/clock.py"} == {path for path in places if not path.startswith("sim/")}


def test_every_time_is_told_alike() -> None:
    """Text has it from `utc`, with its zone; JSON in ISO 8601, from `plain`."""
    formats = re.compile(r"strftime|\.isoformat\(|%Y|%H|%d\.%m|ctime\(")
    places = [str(path.relative_to(ROOT)) for path in MODULES if formats.search(path.read_text())]

    assert ["cli/render/__init__.py", "model/reports.py"] == [place for place in places if not place.startswith("sim/")]


def test_every_state_of_a_credential_is_in_the_docs() -> None:
    """docs/cli.md says of each word of `status` what it means and what to do."""
    text = (ROOT.parent / "docs/cli.md").read_text()
    tables = re.findall(r"^\| `(\w+)` of a credential(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    told = {name: re.findall(r"^\| `([^`]+)` \| \S.* \| \S.* \|$", rows, re.MULTILINE) for name, rows in tables}
    states = [state for state in State if state is not State.UNSET]  # its row goes

    assert {"condition": list(CredentialCondition), "live": list(Live), "state": states} == told


def test_nothing_that_is_shipped_knows_the_tests() -> None:
    """Their variables change nothing; one rule lets them stand in the environment."""
    places = [str(path.relative_to(ROOT)) for path in MODULES if "FLYSYNC_TEST_" in path.read_text()]

    assert ["settings/loading.py"] == places


def test_no_module_is_a_drawer_and_none_is_endless() -> None:
    """No utils; at most 300 lines."""
    assert [] == [path.name for path in MODULES if path.stem in {"utils", "helpers", "common", "types"}]
    assert [] == [path.name for path in MODULES if len(path.read_text().splitlines()) > 300]


def test_every_code_is_in_the_docs() -> None:
    """docs/errors.md has a line for each code, with its exit status."""
    text = (ROOT.parent / "docs/errors.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \| ([\d, ]+) \|", text, re.MULTILINE))
    kinds = [kind for kind in errors.FlysyncError.__subclasses__() if kind.__module__ == errors.__name__]

    assert {kind.code: str(kind("x").exit_code) for kind in kinds} == {
        code: exits.split(",")[0] for code, exits in told.items() if code != "internal_error"
    }
    assert len(kinds) == len({kind.code for kind in kinds})


def test_every_warning_is_in_the_docs() -> None:
    """docs/errors.md says of each what it means; that of an error has its code."""
    _, _, text = (ROOT.parent / "docs/errors.md").read_text().partition("## Warnings")
    told = set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.*?) \|", text, re.MULTILINE))))
    given = {
        code for path in MODULES for code in re.findall(r"(?:Note\(\s*code=|\.note\(\s*)\"(\w+)\"", path.read_text())
    }

    assert given == told - {"ambiguous_deployment", "app_not_visible"}
    assert len(given) > 10


def test_what_the_library_promises_is_there() -> None:
    """Every public name can be imported, every error is one, and `dir` and `help` know them all."""
    kinds = {kind.__name__ for kind in errors.FlysyncError.__subclasses__() if kind.__module__ == errors.__name__}

    assert [] == [name for name in flysync.__all__ if getattr(flysync, name, None) is None]
    assert set() == kinds - set(flysync.__all__)
    assert {*flysync.__all__, "__version__"} == set(dir(flysync))
    assert set() == set(flysync.__all__) - set(re.findall(r"\w+", pydoc.plain(pydoc.render_doc(flysync))))
    assert re.match(r"\d+\.\d+", str(flysync.__version__))
    with pytest.raises(AttributeError):
        flysync.nothing  # noqa: B018


def test_every_test_says_what_it_promises() -> None:
    """One sentence each."""
    silent = [
        f"{path.name}:{node.name}"
        for path in Path(__file__).parents[1].rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]

    assert [] == silent


def test_every_flag_is_in_the_docs() -> None:
    """docs/cli.md names each command and each option."""
    import typer

    from flysync.cli.main import app

    text = (ROOT.parent / "docs/cli.md").read_text()
    group = typer.main.get_command(app)
    flags = {option for one in group.commands.values() for p in one.params for option in p.opts if len(option) > 2}  # type: ignore[attr-defined]

    assert [] == sorted(name for name in group.commands if f"`flysync {name}" not in text)  # type: ignore[attr-defined]
    assert [] == sorted(
        flag for flag in flags - {"--verbose", "--quiet", "--help"} if flag.startswith("-") and flag not in text
    )


def test_nobody_is_told_to_install_it_from_an_index() -> None:
    """It is on none: whoever did so would get nothing, or somebody else's package."""
    wrong = re.compile(r"\b(pip3?|pipx|uv|poetry|pdm) ([^\n&|;#]* )?(install|add)\b[^\n&|;#]*[\s\"'=]flysync\b(?![/.])")
    files = [path for path in ROOT.parent.iterdir() if not path.name.startswith(".") or path.name == ".env.example"]
    files += [
        path for name in ("flysync", "tests", "docs", ".ci", ".github") for path in (ROOT.parent / name).rglob("*")
    ]
    texts = [(path, path.read_text(errors="replace")) for path in files if path.is_file() and path.suffix != ".pyc"]

    assert wrong.search(f'RUN pip install -q "{ROOT.name}[worker]"')
    assert not wrong.search("pip install -q /src && useradd flysync")
    assert [] == [(path.name, found[0]) for path, text in texts if (found := wrong.search(text))]


def test_no_package_index_is_named() -> None:
    """By its host: nothing here is to ask one, and whoever copies a line from here neither."""
    names = "crates|golang|npmjs|packagist|pypi|pythonhosted|rubygems|yarnpkg|(archive|security)[.]ubuntu|deb[.]debian"
    wrong = re.compile(rf"\b({names}|repo1?[.]maven(.apache)?|anaconda)[.](com|io|org)\b", re.IGNORECASE)
    named = [(path.name, found[0]) for path in committed() if (found := wrong.search(path.read_text(errors="replace")))]

    assert all(
        wrong.search(".".join(host)) for host in (("pypi", "org"), ("registry", "npmjs", "org"), ("crates", "io"))
    )
    assert [] == named


def committed() -> list[Path]:
    """Give every file that git knows; where there is no git, every file that is not hidden."""
    git, root = shutil.which("git"), ROOT.parent
    done = subprocess.run([git or "false", "ls-files", "-z"], cwd=root, capture_output=True, check=False)
    names = done.stdout.decode().split("\0") if done.returncode == 0 else []
    hidden = re.compile(r"/\.(?!ci|github|env.example)|/__pycache__/|/node_modules/")
    walked = [path for path in root.rglob("*") if not hidden.search(f"/{path.relative_to(root)}")] if not names else []
    return [path for path in (*walked, *(root / name for name in names if name)) if path.is_file()]


@pytest.mark.parametrize(
    ("page", "name", "path", "most"),
    [
        ("backend.md", "processor", "docs/processor.mjs", 112),
        ("library.md", "example", "tests/typing/library_example.py", 60),
    ],
)
def test_the_program_that_is_shown_is_the_one_that_is_tested(page: str, name: str, path: str, most: int) -> None:
    """docs/ has it in full, and it is short enough to be read."""
    block = rf"<!-- {name}: [^\n]*-->\n```\w+\n(.*?)```\n<!-- {name}: end -->"
    (shown,) = re.findall(block, (ROOT.parent / "docs" / page).read_text(), re.DOTALL)

    assert (ROOT.parent / path).read_text() == shown
    assert len(shown.splitlines()) <= most


def test_the_top_level_holds_what_everybody_expects_there() -> None:
    """And nothing else."""
    top = {path.relative_to(ROOT.parent).parts[0] for path in committed()}
    hidden = {".ci", ".env.example", ".github", ".gitignore", ".pre-commit-config.yaml"}
    shown = {"LICENSE", "README.md", "constraints.txt", "docs", "flysync", "noxfile.py", "pyproject.toml", "tests"}

    assert set() == top - hidden - shown
    assert shown <= top


def test_every_link_of_the_docs_leads_somewhere() -> None:
    """To a file that is there, and to a heading of it; and docs/index.md leads to every page."""
    index = ROOT.parent / "docs/index.md"
    pages = {index, ROOT.parent / "README.md", *index.parent.rglob("*.md")}
    ends = {(page, link): page.parent / link.partition("#")[0] for page in pages for link in links(page)}
    ends = {(page, link): page if link.startswith("#") else end.resolve() for (page, link), end in ends.items()}
    lost = [
        f"{page.name}: {link}"
        for (page, link), end in ends.items()
        if not end.exists() or ("#" in link and link.partition("#")[2] not in slugs(end))
    ]

    assert [] == sorted(lost)
    assert pages - {end for (page, _), end in ends.items() if page == index} == {index, ROOT.parent / "README.md"}


#: English that sends a reader to a dictionary, or to another language, and what to write.
PLAIN = {
    r"(?<!re)(?<!com)mend(s|ed|ing)?\b": "fix, correct, repair",
    r"\banew\b": "again",
    r"\bwork(s|ed|ing)? off\b": "process",
    r"(?<!there )\b(is|are|was|were) no (?!longer\b|more\b|other\b|\w+er\b)": "is not a",
    r"\bclears? up\b": "clean up",
    r"\bstands? (once|twice)\b|\bstands in quotes\b": "occurs twice; is in quotes",
    r"\b(looks|asks) again, once\b": "run again after fixing this",
    r"\bruns on as before\b": "the app is unaffected",
    r"\bthe one to the other\b": "copies them into the Fly app",
    r"\bof no use\b|\bspelled nearly so\b|\bits way out\b": "invalid; similar; how to fix it",
    r"\bslips?\b|\bamiss\b": "a typo, a mistake; wrong",
    r"\bwait so long\b|\b(by|in) so long\b|\bthat nobody needs\b": "how long to wait; in this time; leftover",
    r"\b(takes|bears?) keys\b|\bknown holes?\b": "ignore keys; known vulnerabilities",
    r", for (it|they|he|she|there|nobody) \b(?!.*\?)": "because",
    r"\borganis": "organiz, as Fly and Daytona spell it",
}


def test_the_english_is_plain() -> None:
    """Messages, help, docstrings, comments and pages are read under pressure, by people with other first languages."""
    found = [
        f"{path.relative_to(ROOT.parent)}:{number}: {match[0]!r}: better {better}"
        for path in (*MODULES, *(ROOT.parent / "docs").rglob("*.md"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        for wrong, better in PLAIN.items()
        if (match := re.search(wrong, line, re.IGNORECASE))
    ]

    assert [] == found


def links(page: Path) -> list[str]:
    """Give the links to other pages and files, but for those in examples."""
    text = re.sub(r"^```.*?^```|^ {4}[^\n]*$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]


def slugs(page: Path) -> set[str]:
    """Give the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
