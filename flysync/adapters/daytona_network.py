"""What is wrong between here and Daytona, by the types of the HTTP client's errors (measured with aiohttp 3.14)."""

from __future__ import annotations

import re
import ssl
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import getproxies

import aiohttp

from flysync.errors import ConfigError, DaytonaUnavailable, FlysyncError

if TYPE_CHECKING:
    from flysync.adapters.daytona_errors import Failure

#: What web servers say to http on a port for https (nginx; Go's net/http).
_PLAIN = re.compile(r"plain HTTP request was sent to HTTPS port|HTTP request to an HTTPS server")
#: TLS that ended before anything was wrong with it.
_BROKEN_OFF = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)

_URL = "DAYTONA_API_URL"
_PROXY = "check HTTPS_PROXY and HTTP_PROXY, or put Daytona's host into NO_PROXY"
OUT_OF_REACH = f"check {_URL} and this machine's network, or run the same command again later"


def on_the_way(error: Failure) -> FlysyncError | None:
    """Say what keeps us from Daytona: nothing has then come of the request. Otherwise it got through, or may have."""
    if error.status == 407:  # noqa: PLR2004  a proxy's alone
        return _config("the proxy on the way to Daytona asks for a login (407)", _PROXY)
    if error.status == 400 and _PLAIN.search(str(error)):  # noqa: PLR2004
        return _config("Daytona's server expects https", f"check {_URL}: https:// and the port", _URL)
    return _unconnected(error.__cause__)


def _unconnected(error: BaseException | None) -> FlysyncError | None:
    """Say why there is no connection; nothing where that is not what *error* means."""
    match error:
        case aiohttp.InvalidURL():
            return _config("the address of Daytona, or of a proxy, is not valid", f"check {_URL}; {_PROXY}")
        # It has no type of its own.
        case ValueError() if type(error) is ValueError and "AUTHORIZATION header with AUTH" in str(error):
            message = "~/.netrc has an entry for Daytona's host, or one for all hosts, which conflicts with the key"
            return _config(message, "remove that entry, or set NETRC=/dev/null for flysync", _URL)
        case aiohttp.ClientHttpProxyError(status=status):
            message = f"the proxy on the way to Daytona does not let us through ({status})"
            return _unavailable(message) if status >= 500 else _config(message, _PROXY)  # noqa: PLR2004
        # A proxy's name that cannot be resolved has the type that Daytona's has.
        case aiohttp.ClientConnectorError() if isinstance(error, aiohttp.ClientProxyConnectionError) or any(
            urlsplit(proxy).hostname == error.host for proxy in getproxies().values()
        ):
            return _config(f"the proxy {error.host}:{error.port} on the way to Daytona is out of reach", _PROXY)
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as refusal):
            message = f"the certificate of {error.host}:{error.port} is not valid here ({refusal.verify_message})"
            hint = f"check {_URL}; for a private CA, SSL_CERT_FILE names the file with its certificate"
            return _config(message, hint, _URL)
        case aiohttp.ClientConnectorSSLError(os_error=ssl.SSLError(reason=why) as end) if not isinstance(
            end, _BROKEN_OFF
        ):
            message = f"{error.host}:{error.port} does not speak TLS with us ({why})"
            return _config(message, f"check {_URL}: https:// needs a port that speaks TLS", _URL)
        case aiohttp.ClientConnectorDNSError():
            return _unavailable(f"the name of Daytona's host {error.host} cannot be resolved")
        case aiohttp.ClientConnectorError():
            return _unavailable(f"Daytona is out of reach at {error.host}:{error.port}")
        case _:
            return None


def _config(message: str, hint: str, setting: str | None = None) -> ConfigError:
    return ConfigError(message, hint=hint, service="daytona", setting=setting)


def _unavailable(message: str) -> DaytonaUnavailable:
    return DaytonaUnavailable(message, hint=OUT_OF_REACH)
