"""Whatever a flyctl, or a sandbox in its name, prints in whatever place: an error with a code, and what is not kept."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING

import pytest
from flyctl_scripted import FOUND, Clock, Scripted, flyctl, store, told
from hypothesis import given, settings, strategies as st

from flysync import errors
from flysync.adapters.flyctl import FlyctlRecipe, Source
from flysync.model.fly import AppAtFly, Condition, RolloutEnd

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from flysync.ports import Sandbox

ROWS = '[{"name": "A", "digest": "d", "status": "Deployed"}]'
MACHINES = "none\nnow 1\n"
HUGE = "9" * 400
HUGER = "9" * 5000

#: Texts for any place. Each is an answer with status 0.
TEXTS = {
    "nothing": "",
    "null": "null",
    "a number": HUGER,
    "NaN": "NaN",
    "HTML": "<html>canary</html>",
    "colours": f"\x1b[33mWARN\x1b[0m canary\n{ROWS}",
    "deep": "[" * 200_000,
    "deep objects": '{"a":' * 200_000,
    "NUL": "\0" * 9,
    "half": ROWS[:-1],
    "twice": ROWS + ROWS,
    "what is no UTF-8": "\N{REPLACEMENT CHARACTER}",
    "line ends of others": "\x0b\x0c\x1c\x85\u2028\u2029",
    "digits of others": "٣ ٣\nnow ٣\nuntil ٣",
}


def secret(**fields: object) -> dict[str, object]:
    return {"name": "A", "digest": "d", "status": "Deployed"} | fields


async def look(secrets: str, machines: str = MACHINES) -> AppAtFly:
    return await (await store(Scripted(*[(told(0, secrets), told(0, machines))] * 3))).look()


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_a_list_of_secrets_that_cannot_be_read(text: str) -> None:
    """It is said which list, and nothing of it."""
    with pytest.raises(errors.FlyctlFailed, match=r"^flyctl's list of secrets is not what flysync expects$"):
        await look(text)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_a_list_of_machines_that_cannot_be_read(text: str) -> None:
    """It is said which list, and the secrets are shown."""
    found = await look(ROWS, text)

    assert found.error is not None
    assert (1, None, "flyctl_failed") == (len(found.secrets), found.machines, found.error.code)
    assert "flyctl's list of machines is not what flysync expects" == found.error.message


@pytest.mark.parametrize(
    "rows",
    [
        [secret(digest={})],
        [secret(digest=None)],
        [secret(digest=1)],
        [secret(digest="d" * 10**6)],
        [secret(digest="\0")],
        [secret(name="\ud800")],
        [secret(name="A\x1b[2J")],
        [secret(name="A\nB")],
        [secret(name="N" * 10**6)],
        [secret(name=None)],
        [secret(), secret(digest="e")],
        [secret(status="\ud800")],
        [secret(status=[])],
        [secret(status=float("nan"))],
        [[]],
        {"A": "d"},
    ],
)
async def test_a_secret_that_can_be_none(rows: object) -> None:
    """What cannot be kept or shown, or is there twice, spoils the list: nothing is decided from half of one."""
    with pytest.raises(errors.FlyctlFailed, match="list of secrets"):
        await look(json.dumps(rows))


async def test_many_secrets_and_strange_but_harmless_ones() -> None:
    """What Fly would not take as a name is no credential's, and is not shown; numbers of nobody's are not read."""
    rows = [secret(name=f"{number}n", more=10**30) for number in range(100_000)]
    strange = [secret(name=name) for name in ("# x", "export A", "Größe", "", "a-b", "c4nary-v4lue")]

    assert [row["name"] for row in rows] == [one.name for one in (await look(json.dumps(rows + strange))).secrets]


@pytest.mark.parametrize(
    "lines",
    [
        f"machine\nid m\nexit\nevent\nexit\nat {HUGE}\nend",
        f"machine\nid m\nevent\nexit\nat {HUGER}\nend",
        "machine\nid m\nevent\nexit\nend",
        "machine\nid m\nevent\nexit\nat 1\ncode odd\nend",
        "machine\nid m; rm\nend",
        "machine\nid a-value-7\nend",
        "machine\nid \nend",
        f"machine\nid m\nrelease {HUGER}\nend",
        "machine\nid m\nrelease x\nend",
    ],
)
async def test_a_machine_that_can_be_none(lines: str) -> None:
    """A number that cannot be read hides no crash, and an id that is none gets into no command."""
    found = await look(ROWS, f"{lines}\nnow 1\n")

    assert found.error is not None
    assert (None, "flyctl_failed") == (found.machines, found.error.code)


@pytest.mark.parametrize("release", [HUGE, "2147483648", "-1", "0"])
async def test_a_release_that_no_database_keeps(release: str) -> None:
    """The machine is there, its release is not."""
    found = await look(ROWS, f"machine\nid m\nstate \nlaunched\nrelease {release}\nend\nnow 1\n")
    (machine,) = found.machines or ()

    assert (None, Condition.UNCLEAR) == (machine.release, machine.condition())


ODD_VERSIONS = [
    *TEXTS.values(),
    '{"Version": "' + HUGER + '.0.0"}',
    '{"Version": 1e999}',
    '{"Version": "1.0.0\\ud800"}',
    '{"Version": "1.0.0\\u001b[2J"}',
    '{"Version": "1.0.0\\u0000"}',
    '{"Version": "1.0.0 canary"}',
    '{"Version": "٣.0.0"}',
    '{"Version": {}}',
    '["Version"]',
    '"Version"',
]


@pytest.mark.parametrize("text", ODD_VERSIONS)
async def test_a_flyctl_whose_version_cannot_be_read_is_not_there(text: str) -> None:
    """Another one is installed."""
    sandbox = Scripted(told(0, f"1 {text}"), told(0, '0 {"Version": "0.4.87"}'))
    found = await flyctl(sandbox).prepare()

    assert ("0.4.87", False, None) == (found.version, found.was_there, found.too_old)


@pytest.mark.parametrize("place", ["", "canary", "2", "4", "-1", "1 canary", "1\r", "٣"])
async def test_a_flyctl_that_was_not_run_is_named_by_its_place_alone(place: str) -> None:
    """A sandbox may lie of what it has not run: it is told in words of ours, or not at all."""
    lines = f"{place} is {'c' * 64} canary\n1 is {'a' * 64}\n3 is {'b' * 64}\n2 is {'b' * 63} y"
    found = await flyctl(Scripted(told(0, lines), told(0, '0 {"Version": "0.4.87"}')), "1" * 64).prepare()
    sums = [f"its sum is {one * 12}..., not {'1' * 12}..." for one in "ab"]

    assert f"the flyctl on the PATH was not run: {sums[0]}; ~/.fly/bin/flyctl was not run: {sums[1]}" == found.changed


@pytest.mark.parametrize(
    ("told_version", "version"),
    [
        *((whole, whole) for whole in ("0.4.87", "v0.4.87", "0.4.87-pre-3", "0.0.0-dev", "2026.12.1-dev.1796131965")),
        *((f"0.4.87{more}", "0.4.87") for more in ("canary", "-canary", "+canary.1", "-stablecanary", "_c4nary-v4lue")),
        ("2026.12.1-pr99.7-canary", "2026.12.1-pr99.7"),
    ],
)
async def test_of_a_version_its_numbers_are_shown_and_known_words(told_version: str, version: str) -> None:
    """A build of somebody's own is used as any other; what they call it may be anything."""
    found = await flyctl(Scripted(told(0, f'1 {{"Version": "{told_version}"}}'))).prepare()

    assert (version, True) == (found.version, found.was_there)


async def test_a_flyctl_that_nobody_sums_tells_of_no_sum() -> None:
    """What it prints behind its version is no word of the script's."""
    sandbox = Scripted(told(0, f'1 {{"Version": "0.4.87"}}\n2 is {"a" * 64}'))
    found = await flyctl(sandbox).prepare()

    assert (True, "") == (found.was_there, found.changed)


@pytest.mark.parametrize(("sums", "version"), [(("a" * 64,), "0.4.87"), (("b" * 64,), None), ((), "0.4.87")])
async def test_an_image_does_not_say_that_its_program_is_trusted(sums: tuple[str, ...], version: str | None) -> None:
    """What it prints of a version counts for nothing where the sum is another."""
    source = Source(version="0.4.87", install_url="https://fly.io/install.sh", sums=sums)
    box = Scripted(told(0, f'{"a" * 64}\n{{"Version": "0.4.87"}}'))
    found = await FlyctlRecipe(source, clock=Clock()).look(box, timeout_s=60, was_checked=False)

    assert found is not None
    assert (version, "a" * 64) == (found.version, found.sha256)


@pytest.mark.parametrize("number", ["", "x", "12", "1'", '1"; touch canary; "', "$(canary)", "٣"])
async def test_the_number_of_a_flyctl_is_a_digit(number: str) -> None:
    """It becomes part of a script."""
    sandbox = Scripted(told(0, f'{number} {{"Version": "9.9.9"}}'), told(0, '0 {"Version": "0.4.87"}'))

    assert "0.4.87" == (await flyctl(sandbox).prepare()).version


@pytest.mark.parametrize("text", [*ODD_VERSIONS, HUGER])
async def test_what_is_installed_and_cannot_be_read(text: str) -> None:
    """Said as what it is, without a word of it."""
    with pytest.raises(errors.FlyctlFailed, match=r"^flyctl 0\.4\.87 was installed, and what is there does not run$"):
        await flyctl(Scripted(told(0), told(0, f"0 {text}"))).prepare()


def line(stream: str, text: str) -> str:
    return f"NONCE:PART:{stream}:{text}\n"


OK = base64.b64encode(ROWS.encode()).decode()


@pytest.mark.parametrize(
    "answer",
    [
        line("out", OK) + line("code", HUGE),
        line("out", OK) + line("code", HUGER),
        line("out", OK) + line("code", "-1"),
        line("out", OK) + line("code", "٣"),
        line("out", "é") + line("code", "0"),
        line("out", "===") + line("code", "0"),
        line("out", "A") + line("code", "0"),
        "\0" * 99,
        "\ud800",
        "n" * 10**6,
    ],
)
async def test_an_answer_of_a_sandbox_that_is_none(answer: str) -> None:
    """It is a lost one: asked for again, and then told as that."""
    found = await store(Scripted(*[(answer, answer)] * 3))
    with pytest.raises(errors.DaytonaUnavailable, match="lost the answer"):
        await found.look()


async def test_what_is_no_utf_8_is_read_as_far_as_it_goes() -> None:
    """Nothing of it is a list."""
    answer = line("out", base64.b64encode(b"\xff\xfe\xed\xa0\x80").decode()) + line("code", "0")
    with pytest.raises(errors.FlyctlFailed, match="list of secrets"):
        await (await store(Scripted((answer, told(0, MACHINES))))).look()


JSON: st.SearchStrategy[object] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["name", "digest", "x"]), inner),
    max_leaves=12,
)
WORDS = [
    "machine",
    "id",
    "state",
    "release",
    "event",
    "exit",
    "at",
    "code",
    "now",
    "end",
    "until",
    "has",
    "is",
    "0",
    "1",
]
#: What begins like an answer, and goes on as it likes.
LINES = st.lists(
    st.builds(
        "{} {}".format,
        st.sampled_from(WORDS),
        st.sampled_from(["", "1", "-1", "٣", HUGE, HUGER, "https://api.fly.io/v1", "x'y", "\x1b"]) | st.text(),
    ),
    max_size=8,
).map("\n".join)
ANSWERS = (
    JSON.map(json.dumps)
    | JSON.map(lambda found: json.dumps([secret(name=found), secret(digest=found), found]))
    | JSON.map(lambda found: f"1 {json.dumps({'Version': found})}")
    | LINES
    | LINES.map("machine\nid m\n{}\nend\nnow 1".format)
    | st.text()
)


async def deploy(sandbox: Scripted) -> object:
    rollout = await (await store(sandbox)).deploy(wait=True, timeout_s=60)
    assert rollout.end in {RolloutEnd.SUCCEEDED, RolloutEnd.UNTOUCHED, RolloutEnd.BROKEN_OFF, RolloutEnd.APP_FAILED}
    assert rollout.release is None or 0 < rollout.release < 2**31
    return rollout


async def look_at_image(sandbox: Sandbox) -> object:
    recipe = FlyctlRecipe(Source(version="0.4.87", install_url="https://fly.io/install.sh"), clock=Clock())
    return await recipe.look(sandbox, timeout_s=60, was_checked=False)


async def access(sandbox: Scripted, what: str) -> object:
    sandbox.answers.insert(0, told(0, FOUND))
    found = flyctl(sandbox)
    await found.prepare()
    return await getattr(found, what)()


CALLS: dict[str, Callable[[Scripted], Coroutine[object, object, object]]] = {
    "prepare": lambda sandbox: flyctl(sandbox).prepare(),
    "deploy": deploy,
    "image": look_at_image,
    "token": lambda sandbox: access(sandbox, "token"),
    "reach": lambda sandbox: access(sandbox, "reach"),
}


@pytest.mark.parametrize("call", CALLS)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(stdout=ANSWERS, stderr=st.text(), code=st.sampled_from([0, 0, 1]))
async def test_no_output_is_a_bug_of_ours(call: str, stdout: str, stderr: str, code: int) -> None:
    """Any text in any place ends as a result that can be kept and shown, or as an error with a code."""
    answer = told(code, stdout.encode("utf-8", "replace").decode(), stderr.encode("utf-8", "replace").decode())
    try:
        result = await CALLS[call](Scripted(*[answer] * 9))
    except errors.FlysyncError as error:
        result = error.message
    repr(result).encode()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(secrets=ANSWERS, machines=ANSWERS)
async def test_no_list_is_a_bug_of_ours(secrets: str, machines: str) -> None:
    """As before, of two lists in one step; what is read can go into a database and a script."""
    texts = [text.encode("utf-8", "replace").decode() for text in (secrets, machines)]
    try:
        found = await look(*texts)
    except errors.FlyctlFailed:
        return
    assert all((one.name + one.digest).isprintable() for one in found.secrets)
    assert all(re.fullmatch(r"[A-Za-z0-9_@%+=:,./-]+", one.id) for one in found.machines or ())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=st.text() | st.from_regex(r"(NONCE:PART:(out|err|code):[^\n]*\n)*", fullmatch=True))
async def test_no_answer_of_a_sandbox_is_a_bug_of_ours(text: str) -> None:
    """Nor is any envelope."""
    with pytest.raises((errors.DaytonaUnavailable, errors.FlyctlFailed)):
        await (await store(Scripted(*[(text, text)] * 9))).look()
