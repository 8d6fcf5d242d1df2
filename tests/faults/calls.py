"""What can go wrong, and with which call: the two sides of the matrix."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flysync.sim.loopback import Fault, FaultKind

#: The seconds of `Retry-After`, where there is one.
RETRY_AFTER_S = 2.0
_STATUS_CODES = (401, 403, 404, 408, 409, 429, 500, 502, 503)
_HTML = "<html><body>Welcome to this network</body></html>"

#: Every fault by the name it has in the docs.
FAULTS: dict[str, Fault] = {
    "no answer": Fault(match="", kind=FaultKind.HANG),
    "cut before the work": Fault(match="", kind=FaultKind.DROP_BEFORE),
    "cut after the work": Fault(match="", kind=FaultKind.DROP_AFTER),
    "half an answer": Fault(match="", kind=FaultKind.TRUNCATE),
    "HTML": Fault(match="", status=200, body=_HTML, content_type="text/html"),
    **{str(status): Fault(match="", status=status) for status in _STATUS_CODES},
    "429, Retry-After": Fault(match="", status=429, headers={"Retry-After": f"{RETRY_AFTER_S:g}"}),
}
#: What Daytona alone says, and only to a create: status and words.
_REFUSALS = {
    "quota (400)": (400, "Total CPU limit exceeded. Maximum allowed: 10."),
    "quota (403)": (403, "Total memory limit exceeded. Maximum allowed: 10GiB."),
    "suspended": (403, "Organization is suspended: Payment method required"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A request of a sync, and how it is found among the others."""

    key: str
    title: str
    service: str
    #: The step that it is, or the part of one that it belongs to; empty for Daytona's own calls.
    step: str = ""
    #: Which requests these are: "METHOD /path", and a part of the body.
    match: str
    body: str = ""
    #: How many matching requests come before it.
    skip: int = 0
    #: How many such requests the step makes at least when all is well.
    usual: int = 1

    @property
    def faults(self) -> tuple[str, ...]:
        """The names of those that it can meet with."""
        return (*FAULTS, *(_REFUSALS if self.key == "create" else ()))

    def fault(self, name: str, *, lasting: bool) -> Fault:
        """Give the fault that hits this call: once, or each time from then on."""
        status, says = _REFUSALS.get(name, (0, "injected"))
        fault = FAULTS.get(name) or Fault(match="", status=status)
        words = {401: "unauthorized", 404: "app not found"}  # as the Machines API says them (transcripts)
        body = fault.body
        if self.service == "fly" and fault.status in words:
            body = f'{{"error": "{words[fault.status]}"}}'
        elif self.service == "daytona" and body.startswith("{"):
            body = f'{{"statusCode": {fault.status}, "message": "{says}", "path": "/", "timestamp": ""}}'
        return replace(fault, match=self.match, body=body, skip=self.skip, times=10**6 if lasting else 1)


_EXECS = ("set", "deploy")
_TITLES = {"first": "list before the set", "list": "list after it", "confirm": "list after the deploy"}


def _exec(step: str, skip: int) -> Call:
    return Call(
        key=f"exec {step}",
        title=f"exec: {_TITLES.get(step, step)}",
        service="daytona",
        step=step,
        match="POST /toolbox/.*/process/execute",
        skip=skip,
    )


def _fly(step: str, what: str, match: str, *, body: str = "", skip: int = 0, usual: int = 1) -> Call:
    title = f"{_TITLES.get(step, step)}: {what}"
    return Call(
        key=f"{step}: {what}",
        title=title,
        service="fly",
        step=step,
        match=match,
        body=body,
        skip=skip,
        usual=usual,
    )


_APP = "GET /v1/apps/[^/]+/"
_MACHINE = "/v1/apps/[^/]+/machines/[^/?]+"


def _list(step: str, number: int, machines: int) -> tuple[Call, ...]:
    """Give the requests of the list with this *number*: of `secrets list`, and the one of `machine list` after it."""
    return (
        _fly(step, "GET secrets", _APP + "secrets", skip=number),
        _fly(
            step, "GET machines, for the status", _APP + "machines$", skip=machines, usual=1 if step == "first" else 2
        ),
        _fly(step, "GET releases", "GET /api/v1/apps/[^/]+/releases", skip=number),
        *([] if step == "first" else [_fly(step, "GET machines", _APP + "machines$", skip=machines + 1, usual=2)]),
    )


CALLS: tuple[Call, ...] = (
    Call(key="create", title="create", service="daytona", match="POST /api/sandbox$"),
    Call(key="get", title="look up, after a create without an answer", service="daytona", match="GET /api/sandbox/"),
    _exec("install", 1),
    *(_exec(step, skip) for skip, step in enumerate(_EXECS)),
    Call(key="delete", title="delete", service="daytona", match="DELETE /api/sandbox/"),
    *_list("first", 0, machines=0),
    _fly("set", "look the app up", "POST /graphql", body="appcompact"),
    _fly("set", "POST secrets", "POST /v1/apps/[^/]+/secrets"),
    *_list("list", 1, machines=1),
    _fly("deploy", "look the app up", "POST /graphql", body="appcompact", skip=1),
    _fly("deploy", "GET machines", _APP + "machines$", skip=3, usual=3),
    _fly("deploy", "POST releases", "POST /api/v1/releases"),
    _fly("deploy", "PATCH releases, running", "PATCH /api/v1/releases/", body='"running"'),
    _fly("deploy", "POST lease", f"POST {_MACHINE}/lease"),
    _fly("deploy", "POST machine", f"POST {_MACHINE}$"),
    _fly("deploy", "GET wait", f"GET {_MACHINE}/wait"),
    _fly("deploy", "GET machine", f"GET {_MACHINE}$"),
    _fly("deploy", "DELETE lease", f"DELETE {_MACHINE}/lease"),
    _fly("deploy", "PATCH releases, complete", "PATCH /api/v1/releases/", body='"complete"', skip=1),
    *_list("confirm", 2, machines=6),
)
