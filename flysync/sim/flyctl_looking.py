"""What the stand-in for flyctl does for those who look: `status --json`, `tokens debug`, `auth whoami`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from flysync.sim.flyctl_home import is_macaroon, tokens_from
from flysync.sim.flyctl_http import Failure, Prefixed, to_json
from flysync.sim.flyctl_machines import shown

if TYPE_CHECKING:
    from flysync.sim.flyctl_session import Session

_NO_MACAROON = "pass a macaroon token (e.g. from `fly tokens deploy`) as the -t argument or in FLY_API_TOKEN"


def show_status(session: Session) -> None:
    """Print an app with its machines; as JSON only, because the rest asks for more than the simulated Fly knows."""
    app = session.app()
    if not session.json:
        raise Failure("the stand-in for flyctl knows `status --json` only")
    with Prefixed("failed to get app: "):
        compact = session.api.app_compact(app)
    with Prefixed("failed to list active VMs: "):
        machines = session.api.machines("GET", f"/apps/{compact['name']}/machines")
    with Prefixed(f"could not get current release for app '{compact['name']}': "):
        version = session.api.current_version(compact["name"])
    status = {
        "AppURL": compact.get("appUrl"),
        "Deployed": compact.get("deployed"),
        "Hostname": compact.get("hostname"),
        "ID": compact.get("id"),
        "Machines": [shown(machine) for machine in machines],
        "Name": compact["name"],
        "Status": compact.get("status"),
        "Version": version,
    }
    session.out(json.dumps(status, indent=4, ensure_ascii=False))


def debug_token(session: Session) -> None:
    """Print what macaroons say about themselves; nobody is asked (measured)."""
    from flysync.sim.macaroon import decoded

    tokens = tokens_from(session.environ, session.call.flags.get("access-token"))
    macaroons = [token for token in tokens if is_macaroon(token)]
    if not macaroons:
        raise Failure(_NO_MACAROON)
    caveats = []
    for position, token in enumerate(macaroons):
        try:
            caveats.append(decoded(token))
        except ValueError as error:
            if "msgpack" not in str(error):
                text = f"unable to parse token: parse flyv1 token: fm2: {error}: bad token"
                raise Failure(text) from None
            session.err(f"unable to decode token at position {position}: {error}")
    session.out(json.dumps(caveats, indent=2) + "\n")


def show_viewer(session: Session) -> None:
    """Print who the token belongs to."""
    with Prefixed("failed retrieving current user: "):
        email = str(session.api.viewer().get("email", ""))
    session.out(f'{{\n    "email": {to_json(email).decode()}\n}}' if session.json else email)
