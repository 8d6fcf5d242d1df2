"""
The stand-in's three clients of Fly: GraphQL, the Machines API, and releases.

Requests, headers and error texts are those of flyctl ad0172fac with fly-go v0.9.6 (flyctl.md 3; measured).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flysync.sim.flyctl_home import is_macaroon
from flysync.sim.flyctl_http import Failure, Http, Prefixed, from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from flysync.sim.flyctl_http import Response

_COMPACT = (
    "query ($appName: String!) { appcompact:app(name: $appName) { id internalNumericId name hostname cnameTarget "
    "deployed network status appUrl platformVersion organization { id internalNumericId slug paidPlan } "
    "postgresAppRole: role { name } } }"
)
_VIEWER = "query { viewer { ... on User { id email enablePaidHobby } ... on Macaroon { email } } }"
_VERSION = "query ($appName: String!) { app(name:$appName) { currentRelease:currentReleaseUnprocessed { version } } }"
_RELEASE_FIELDS = {"FlyctlConfigCurrentRelease": ("configDefinition",), "LatestImage": ("id", "version", "imageRef")}


class Api:
    """Fly's services at the addresses in the environment; the stand-in knows no others."""

    def __init__(self, environ: Mapping[str, str], *, token: str, http: Http, version: str) -> None:
        self._environ = environ
        self._http = http
        macaroons = ",".join(one for one in token.split(",") if is_macaroon(one))
        # The Machines API gets macaroons alone where there are any (read: fly-go tokens/tokens.go; measured).
        self._to_machines = f"FlyV1 {macaroons}" if macaroons else f"Bearer {token}"
        self._to_graphql = f"{'FlyV1' if macaroons else 'Bearer'} {token}"
        self._to_releases = f"Bearer {token}"
        self._agent = f"flyctl/{version} (interactive=false; parent=other)"

    def app_compact(self, app: str) -> dict[str, Any]:
        """Look up an app: its name, and whether it was ever deployed."""
        data = self._handwritten(_COMPACT, {"appName": app})
        return data.get("appcompact") or {"name": "", "deployed": False}

    def viewer(self) -> dict[str, Any]:
        """Give who the token belongs to."""
        return self._handwritten(_VIEWER, None).get("viewer") or {}

    def current_version(self, app: str) -> int:
        """Give the number of the app's current release; 0 where it has none."""
        found = self._handwritten(_VERSION, {"appName": app}).get("app") or {}
        return int((found.get("currentRelease") or {}).get("version", 0))

    def current_release(self, app: str, operation: str) -> dict[str, Any]:
        """Ask for some fields of the app's current release; an error leaves them out, as it does in flyctl."""
        fields = "".join(f"\t\t\t{field}\n" for field in _RELEASE_FIELDS[operation])
        query = (
            f"\nquery {operation} ($appName: String!) {{\n\tapp(name: $appName) {{\n"
            f"\t\tcurrentReleaseUnprocessed {{\n{fields}\t\t}}\n\t}}\n}}\n"
        )
        body = {"query": query, "variables": {"appName": app}, "operationName": operation}
        try:
            response = self._http.send(
                "POST", self._graphql_url(), self._headers(self._to_graphql, json=True), to_json(body)
            )
            found = from_json(response.body) if response.status == 200 else {}
        except Failure:
            found = {}
        if not isinstance(found, dict) or found.get("errors"):
            return {}
        app_data = (found.get("data") or {}).get("app") or {}
        return app_data.get("currentReleaseUnprocessed") or {}

    def machines(
        self, method: str, path: str, body: object = None, *, nonce: str = "", deadline: float | None = None
    ) -> Any:
        """
        Call the Machines API and give what it answers.

        Raises a failure with the server's own words; the status never shows in them.
        """
        headers = self._headers(json=body is not None)
        if nonce:
            headers["fly-machine-lease-nonce"] = nonce
        base = self._base("FLY_FLAPS_BASE_URL")
        root = "/".join(base.split("/", 3)[:3])
        send = self._http.send_again if method == "GET" else self._http.send
        data = b"" if body is None else to_json(body)
        response = send(method, f"{root}/v1{path}", headers, data, deadline=deadline)
        if response.status > 299:
            raise _refused(response)
        if method == "DELETE" or "/wait?" in path:
            self._http.forget()
            return None
        with Prefixed("failed decoding response: "):
            return from_json(response.body)

    def releases(self, method: str, path: str, body: object = None) -> Response:
        """Call the releases API and give its answer as it is."""
        headers = self._headers(self._to_releases, json=True) | {"User-Agent": "(interactive=false; parent=other)"}
        data = b"" if body is None else to_json(body) + b"\n"
        return self._http.send(method, self._base("FLY_UIEX_BASE_URL") + path, headers, data)

    def app_log(self, app: str, machine_id: str, region: str) -> Response:
        """Ask for what a machine printed."""
        where = f"instance={machine_id}&next_token=" + (f"&region={region}" if region else "")
        url = f"{self._base('FLY_API_BASE_URL')}/api/v1/apps/{app}/logs?{where}"
        return self._http.send("GET", url, self._headers(json=False))

    def _handwritten(self, query: str, variables: dict[str, str] | None) -> dict[str, Any]:
        headers = self._headers(self._to_graphql, json=True)
        headers["Content-Type"] = headers["Accept"] = "application/json; charset=utf-8"
        body = to_json({"query": query, "variables": variables}) + b"\n"
        with Prefixed(f"failed to run {query}: "):
            response = self._http.send_again("POST", self._graphql_url(), headers, body)
            return _graphql_data(response)

    def _graphql_url(self) -> str:
        return self._base("FLY_API_BASE_URL") + "/graphql"

    def _base(self, name: str) -> str:
        """Give an address of the simulated Fly; the real one is never called."""
        if not self._environ.get(name):
            raise Failure(f"the stand-in for flyctl does not talk to the real Fly.io: set {name}")
        return self._environ[name].rstrip("/")

    def _headers(self, authorization: str = "", *, json: bool) -> dict[str, str]:
        headers = {
            "User-Agent": self._agent,
            "Authorization": authorization or self._to_machines,
            "Fly-Client-Interactive": "false",
            "Fly-Client-Parent": "other",
        }
        if json:
            headers["Content-Type"] = "application/json"
        return headers


def _graphql_data(response: Response) -> dict[str, Any]:
    """Give the data of an answer; raises a failure with the first error's message where there are errors."""
    if response.status != 200:
        raise Failure(f"server returned a non-200 status code: {response.status}")
    with Prefixed("decoding response: "):
        found = from_json(response.body)
    if errors := found.get("errors"):
        unchanged = errors[0].get("extensions", {}).get("code") == "UNCHANGED"
        raise Failure(errors[0]["message"], exit_code=0 if unchanged else 1)
    return found.get("data") or {}


def _refused(response: Response) -> Failure:
    """Give the failure that an answer of the Machines API means (read: flaps.go handleAPIError; measured)."""
    if response.status < 400:
        return Failure(f"API returned unexpected status, {response.status}", status=response.status)
    try:
        found = from_json(response.body)
        said = [found.get(key, "") for key in ("message", "error", "status")]
        understood = all(isinstance(text, str) for text in said)
    except (Failure, AttributeError):
        said, understood = [], False
    if not understood:
        shown = response.body.decode("utf-8", "replace")
        text = f"request returned non-2xx status: {response.status}: {shown}"
        said = [text, "", ""]
    full = said[2] == "insufficient_capacity"
    return Failure(
        said[0] or said[1],
        status=response.status,
        request_id=response.headers.get("fly-request-id", ""),
        suggestion="Try choosing a different region for machine creation" if full else "",
    )
