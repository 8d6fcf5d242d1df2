"""
What flysync relies on in `flyctl secrets set|unset|sync|list`: values, versions, how it reads answers.

The fixtures say on what: `flyctl` plays recorded runs, `any_flyctl` is the stand-in, and both are a real one too where
FLYSYNC_TEST_FLYCTL names one. Transcripts are in `test_flyctl_transcripts.py`, tokens, traces and arguments in
`test_flyctl_access.py`, roll-outs in `test_flyctl_rollout.py`.
"""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest
from flyctl_runner import Runner, normal

from flysync.sim.loopback import Fault, FaultKind

if TYPE_CHECKING:
    from flysync.sim.fly import Fly
    from flysync.sim.fly_state import App

APP = ("--app", "acme-web")
STAGE = (*APP, "--stage", "--")
STAGED = (
    "Secrets have been staged, but not set on VMs. "
    "Deploy or update machines in this app for the secrets to take effect.\n"
)

#: What has gone wrong with secrets somewhere: white space, quotes, comments, line ends, Unicode, look-alike flags.
AWKWARD = [
    *(chr(code) for code in range(1, 33)),
    *(f"a{chr(code)}b" for code in (*range(1, 48), *range(58, 65), *range(91, 97), *range(123, 161))),
    *("", " ", "\t", " lead", "trail ", "trail\n", "\r\n", "a\r\nb", "-", "--", "--app", "-a", "=", "==", "a=b", "A=B"),
    *('"', "'", '"quoted"', "'quoted'", '"""', '"""x"""', "a#b", "# x", 'a"b#c', "$HOME", "`id`", "$(id)", "%s", "\\n"),
    *("{}", "null", "true", "0", "<html>&amp;", "\u2028", "\u2029", "\ufeffbom", "\u00a0nbsp\u00a0", "ü", "é", "日本"),
    *(
        "\U0001f511",
        "\ufffd",
        "\ud7ff",
        "\ue000",
        "\uffff",
        "\U0010ffff",
        "-----BEGIN KEY-----\nMIIE\n-----END KEY-----\n",
    ),
    *("x" * 65535, "x" * 65536, "y\n" * 40000),
]


def awkward_values(count: int) -> list[str]:
    """Give *count* values without NUL: the known awkward ones, then random mixtures of them."""
    dice = random.Random(20261124)
    short = [value for value in AWKWARD if len(value) < 100]
    mixed = ("".join(dice.choices(short, k=dice.randint(2, 8))) for _ in range(count))
    # A lone dash is the one value that argv cannot carry.
    return [value for value in [*AWKWARD, *mixed] if value != "-"][:count]


#: The table of a secret that is deployed, one that is staged, and one that is on one of two machines.
ALL_STATES = """\
 NAME   │ DIGEST           │ STATUS
 * NEW  │ <digest> │ Staged
 OLD    │ <digest> │ Deployed
 ! PART │ <digest> │ Partial

Some secrets need to be deployed:
  * 1 secret staged (not yet deployed)
  ! 1 secret partially deployed (deployed to some machines)

Deploy with `fly secrets deploy` to sync all machines.
"""


@pytest.fixture
def app(fly: Fly) -> App:
    """An app with one machine and one secret."""
    return fly.add_app("acme-web", machines=["m0"], secrets={"OLD": "old"})


class TestValues:
    """What arrives is what was given."""

    async def test_awkward_values_arrive_byte_for_byte(self, any_flyctl: Runner, app: App) -> None:
        """Three calls carry three hundred awkward values by argv, and each arrives as it was."""
        values = {f"V{number}": value for number, value in enumerate(awkward_values(300))}
        items = list(values.items())
        for first in range(0, 300, 100):
            outcome = await any_flyctl("secrets", "set", *STAGE, *(f"{n}={v}" for n, v in items[first : first + 100]))

            assert (0, STAGED) == (outcome.code, outcome.stdout)

        assert values == {name: app.secrets[name] for name in values}

    async def test_the_longest_argument_arrives(self, any_flyctl: Runner, app: App) -> None:
        """A value of 131 069 bytes with a name of one passes: Linux allows no longer argument."""
        value = "é" * 65534 + "x"
        outcome = await any_flyctl("secrets", "set", *STAGE, f"A={value}")

        assert (0, value) == (outcome.code, app.secrets["A"])

    @pytest.mark.parametrize(
        ("given", "expected"),
        [(b"\xff\xfe", "\ufffd" * 2), (b"a\xe2\x82b", "a\ufffd\ufffdb"), (b"\xed\xa0\x80", "\ufffd" * 3)],
    )
    async def test_bytes_that_are_not_utf8_are_lost(
        self, flyctl: Runner, app: App, given: bytes, expected: str
    ) -> None:
        """Each byte that is no UTF-8 becomes U+FFFD, with exit code 0."""
        outcome = await flyctl("secrets", "set", *STAGE, b"A=" + given)

        assert (0, expected) == (outcome.code, app.secrets["A"])

    async def test_names_may_look_like_flags_after_two_dashes(self, flyctl: Runner, app: App) -> None:
        """After `--` nothing is a flag, and the last of two equal names wins."""
        outcome = await flyctl("secrets", "set", *STAGE, "-a=x", "A=1", "A=2")

        assert 'Error: update secrets: failed to update app secrets: "-a" is not a valid secret name' == outcome.error
        assert b'{"values":{"-a":"x","A":"2"}}' == outcome.records[1].body
        assert {"OLD": "old"} == app.secrets

    @pytest.mark.parametrize(
        ("piped", "expected"),
        [
            (b"-", "-"),
            (b"", ""),
            (b" \n\xc2\xa0he llo\xc2\x85\t\n", "he llo"),
            (b"\xe2\x80\xa8\x1ex\x1f\xe3\x80\x80", "\x1ex\x1f"),
            (b"a\xffb\x00c", "a\ufffdb\x00c"),
            (b"x" * 65536, "x" * 65536),
        ],
    )
    async def test_a_dash_reads_standard_input(self, flyctl: Runner, app: App, piped: bytes, expected: str) -> None:
        """`NAME=-` takes the value from standard input, without the white space around it."""
        outcome = await flyctl("secrets", "set", *STAGE, "A=-", "B= - ", stdin=piped)

        assert (0, expected, " - ") == (outcome.code, app.secrets["A"], app.secrets["B"])

    async def test_too_much_on_standard_input_is_refused(self, flyctl: Runner, app: App) -> None:
        """More than 64 KiB for `NAME=-` is an error, and nothing is stored."""
        outcome = await flyctl("secrets", "set", *STAGE, "A=-", stdin=b"x" * 65537)

        assert "Error: error reading stdin for 'A': Input exceeded max length of 65536 bytes" == outcome.error
        assert {"OLD": "old"} == app.secrets

    async def test_unsetting_removes(self, any_flyctl: Runner, app: App) -> None:
        """`unset` removes a secret, and one that is not there is no mistake."""
        outcome = await any_flyctl("secrets", "unset", *STAGE, "OLD", "NOPE")

        assert (0, STAGED, {}) == (outcome.code, outcome.stdout, app.secrets)


class TestVersions:
    """The configuration directory remembers the newest secrets version."""

    async def test_a_set_is_remembered(self, flyctl: Runner, app: App) -> None:
        """After a set, `list` asks for the version that the set made."""
        await flyctl("secrets", "set", *STAGE, "A=1")
        outcome = await flyctl("secrets", "list", *APP, "--json")

        assert 3 == app.vault.version
        assert "GET /v1/apps/acme-web/secrets?version=3" == outcome.requests[0]

    async def test_a_sync_learns_what_others_set(self, real_flyctl: Runner, fly: Fly, app: App) -> None:
        """`sync` brings the newest version into the directory, and changes no secret."""
        app.vault.update({"OTHER": "1"}, at=fly.world.now())
        outcome = await real_flyctl("secrets", "sync", *APP)
        config = (real_flyctl.config / "config.yml").read_text()

        assert (0, "", "") == (outcome.code, outcome.stdout, outcome.stderr)
        assert ("app_secrets_minvers:\n    acme-web: 4\n", {"OLD", "OTHER"}) == (config, set(app.secrets))

    async def test_a_lost_answer_is_not_remembered(self, any_flyctl: Runner, fly: Fly, app: App) -> None:
        """When the answer is lost, the secret is stored and the directory does not know."""
        fly.faults.append(Fault(match="POST /v1/apps/acme-web/secrets", kind=FaultKind.DROP_AFTER))
        outcome = await any_flyctl("secrets", "set", *STAGE, "A=1")

        assert (1, "1") == (outcome.code, app.secrets["A"])
        assert not (any_flyctl.config / "config.yml").exists()


class TestAnswers:
    """How flyctl reads what Fly says."""

    @pytest.mark.parametrize(
        ("status", "body", "said"),
        [
            (200, "", "failed decoding response: EOF"),
            (200, '{"version": ', "failed decoding response: unexpected EOF"),
            (304, "", "API returned unexpected status, 304"),
            (400, '{"error": "e", "message": "m"}', "m"),
            (400, "{}", ""),
            (400, "[1]", "request returned non-2xx status: 400: [1]"),
            (409, '{"error": 1}', "request returned non-2xx status: 409: " + '{"error": 1}'),
        ],
    )
    async def test_odd_answers(self, flyctl: Runner, fly: Fly, app: App, status: int, body: str, said: str) -> None:
        """What is no proper answer is told in words of Go's or of the server's."""
        fly.faults.append(Fault(match=f"POST /v1/apps/{app.name}/secrets", status=status, body=body))
        outcome = await flyctl("secrets", "set", *STAGE, "A=1")

        assert (1, f"Error: update secrets: failed to update app secrets: {said}") == (outcome.code, outcome.error)

    async def test_the_requests_id_is_shown(self, flyctl: Runner, fly: Fly, app: App) -> None:
        """Where the server sends a request id, the error ends with it."""
        fault = Fault(match=f"POST /v1/apps/{app.name}/secrets", status=422, headers={"fly-request-id": "01ABC"})
        fly.faults.append(fault)
        outcome = await flyctl("secrets", "set", *STAGE, "A=1")

        assert "Error: update secrets: failed to update app secrets: injected (Request ID: 01ABC)" == outcome.error

    @pytest.mark.parametrize(
        ("body", "said", "code"),
        [
            ("<html>", "decoding response: invalid character '<' looking for beginning of value", 1),
            ("", "decoding response: EOF", 1),
            ('{"errors": [{"message": "one"}, {"message": "two"}]}', "one", 1),
            ('{"errors": [{"message": "same", "extensions": {"code": "UNCHANGED"}}]}', "same", 0),
        ],
    )
    async def test_odd_answers_of_graphql(
        self, flyctl: Runner, fly: Fly, app: App, body: str, said: str, code: int
    ) -> None:
        """A GraphQL error is shown with its query; UNCHANGED is one with exit code 0."""
        fly.faults.append(Fault(match="POST /graphql", status=200, body=body))
        outcome = await flyctl("secrets", "set", *STAGE, "A=1")

        assert (code, f"Error: <Q1>{said}", {"OLD": "old"}) == (outcome.code, outcome.error, app.secrets)

    async def test_a_dead_connection_is_replaced_for_a_read(self, flyctl: Runner, fly: Fly, app: App) -> None:
        """A GET on a kept connection that breaks is sent again; the first request of a call is not."""
        fly.faults.append(Fault(match=f"GET /v1/apps/{app.name}/machines", kind=FaultKind.DROP_BEFORE))
        again = await flyctl("secrets", "list", *APP, "--json")
        fly.faults.append(Fault(match=f"GET /v1/apps/{app.name}/secrets", kind=FaultKind.DROP_BEFORE))
        broken = await flyctl("secrets", "list", *APP, "--json")
        url = "http://127.0.0.1:<port>/v1/apps/acme-web/secrets"

        assert (0, [200, 0, 200, 200]) == (again.code, [record.status for record in again.records])
        assert f'Error: failed to list app secrets: Get "{url}": EOF' == normal(broken.error)


class TestList:
    """What `secrets list` says, which goes by times alone."""

    async def test_all_states(self, flyctl: Runner, fly: Fly, app: App) -> None:
        """A secret is Deployed, Partial or Staged by how many machines have a release that is younger."""
        app.add_machine("m1")
        app.vault.update({"PART": "1"}, at=fly.world.now())
        release = app.add_release(image="x", definition=None, at=fly.world.now())
        app.machines[0].config["metadata"] = {**app.machines[0].metadata, "fly_release_version": str(release.version)}
        app.vault.update({"NEW": "1"}, at=fly.world.now())
        outcome = await flyctl("secrets", "list", *APP, "--json")
        listed = {row["name"]: row["status"] for row in json.loads(outcome.stdout)}
        table = await flyctl("secrets", "list", *APP)

        assert {"NEW": "Staged", "OLD": "Deployed", "PART": "Partial"} == listed
        assert ALL_STATES.splitlines() == [line.rstrip() for line in normal(table.stdout).splitlines()]

    async def test_nothing(self, flyctl: Runner, fly: Fly) -> None:
        """An app without secrets has an empty list."""
        fly.add_app("bare", machines=0)
        outcome = await flyctl("secrets", "ls", "-j", "-a", "bare")

        assert (0, "[]\n") == (outcome.code, outcome.stdout)

    async def test_many_machines(self, flyctl: Runner, fly: Fly) -> None:
        """With more than a hundred machines there is no status, and nobody asks for releases."""
        fly.add_app("big", machines=101, secrets={"A": "1"})
        outcome = await flyctl("secrets", "list", "--app=big", "--json")

        assert [["name", "digest"]] == [list(row) for row in json.loads(outcome.stdout)]
        assert ["GET /v1/apps/big/secrets", "GET /v1/apps/big/machines"] == outcome.requests
