from __future__ import annotations

import pytest
from redis.asyncio.connection import SSLConnection, parse_url

from flysync.errors import ConfigError
from flysync.settings import loading, readers, redis_address
from flysync.settings.loading import Source

PASSWORD = "hunter2"


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("redis://h", {"host": "h"}),
        ("redis://", {}),
        ("redis://h:6380/3", {"host": "h", "port": 6380, "db": 3}),
        ("redis://[fd00::1]:6379/", {"host": "fd00::1", "port": 6379}),
        ("REDIS://h", {"host": "h"}),
        ("valkey://:hunter2@h", {"host": "h", "password": PASSWORD}),
        ("redis://:hunter2@h", {"host": "h", "password": PASSWORD}),
        ("redis://default:hunter2@h", {"host": "h", "username": "default", "password": PASSWORD}),
        ("redis://user@h", {"host": "h", "username": "user"}),
        ("redis://:a@b@h", {"host": "h", "password": "a@b"}),
        ("redis://:a:b%40%2F%25@h", {"host": "h", "password": "a:b@/%"}),
        ("redis://:50%off@h", {"host": "h", "password": "50%off"}),
        ("redis://h?password=hunter2", {"host": "h", "password": PASSWORD}),
        ("redis://h?username=u&password=a%2541", {"host": "h", "username": "u", "password": "a%41"}),
        ("redis://h?db=5", {"host": "h", "db": 5}),
        ("redis://h/5?db=5", {"host": "h", "db": 5}),
        ("redis://h/0?family=0", {"host": "h"}),
        ("redis://h?family=6", {"host": "h"}),
        ("redis://h?maxRetriesPerRequest=3&connectTimeout=1&socket_timeout=1&pool_size=9", {"host": "h"}),
        ("redis://h?autoResubscribe=false&autoResendUnfulfilledCommands=0&showFriendlyErrorStack=1", {"host": "h"}),
        ("redis://h?stringNumbers=1&dualStack=1&enableAutoPipelining=1&maxScriptsCachingTime=1", {"host": "h"}),
        ("rediss://h", {"host": "h", "tls": True}),
        ("valkeys://h", {"host": "h", "tls": True}),
        ("redis+tls://h", {"host": "h", "tls": True}),
        ("redis://h?tls=true", {"host": "h", "tls": True}),
        ("redis://h?ssl=False", {"host": "h"}),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", {"host": "h", "tls": True, "ssl_cert_reqs": "none"}),
        ("rediss://h?ssl_ca_certs=/ca.pem", {"host": "h", "tls": True, "ssl_ca_certs": "/ca.pem"}),
        ("rediss://h?ssl_check_hostname=off", {"host": "h", "tls": True, "ssl_check_hostname": False}),
        ("unix:///run/redis.sock?db=2", {"path": "/run/redis.sock", "db": 2}),
        ("unix://:hunter2@/run/redis.sock", {"path": "/run/redis.sock", "password": PASSWORD}),
    ],
)
def test_an_address_is_read_as_it_was_meant(text: str, means: dict[str, object]) -> None:
    """redis-py makes of ours what the other clients, and whoever wrote it, understand by it."""
    found = dict(parse_url(redis_address.read(text)))

    is_tls = found.pop("connection_class", None) is SSLConnection
    assert {"db": 0, **means} == {**found, **({"tls": True} if is_tls else {})}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hunter2", "is not a redis:// address"),
        ("http://:hunter2@h", "is not a redis:// address"),
        ("//:hunter2@h", "is not a redis:// address"),
        ('"redis://:hunter2@h"', "is in quotes"),
        ("redis-cli -u redis://:hunter2@h", "is a redis-cli command"),
        ("h.redis.cache.windows.net:6380,password=hunter2=,ssl=True", "is a list of options"),
        ("redis-sentinel://:hunter2@h:26379/0/mymaster", "leads to Sentinels"),
        ("redis+sentinel://h", "leads to Sentinels"),
        ("redis+cluster://h", "leads to a cluster"),
        ("redis://:hunter2@h1:6379,h2:6379", "names several hosts"),
        ("redis://:hunter2@h:port", "is not a valid Redis address"),
        ("redis://:hunter2@h:99999", "is not a valid Redis address"),
        ("redis://:hunter2@h:0", "has no valid host and port"),
        ("redis://:hunter2@${HOST}:6379", "contains a variable or placeholder that was not filled in"),
        ("redis://:hunter2@h..x:6379", "has no valid host and port"),
        (f"redis://:hunter2@{'h' * 64}", "has no valid host and port"),
        ("redis://:hunter2[@h", "is not a valid Redis address"),
        ("redis://:hunter2%ff@h", "is not a valid Redis address"),
        ("redis://:hun/ter2@h", "has an unencoded character in its password|is not a valid Redis address"),
        ("redis://:1/hunter2@h", "has an unencoded character in its password"),
        ("redis://:1?hunter2@h", "has an unencoded character in its password"),
        ("redis://:1#hunter2@h", "has an unencoded character in its password"),
        ("redis://:hunter2 @h", "contains whitespace"),
        ("redis://h/mydb", "has a database that is not a number"),
        ("redis://h/99999999999", "has a database that is not a number"),
        ("redis://h/1/2", "has a database that is not a number"),
        ("redis://h/-1", "has a database that is not a number"),
        ("redis://h?db=one", "has a database that is not a number"),
        ("redis://h/1?db=2", "names two databases"),
        ("redis://h?tls=maybe", "has a parameter tls that is neither true nor false"),
        ("rediss://h?ssl=false", "has a parameter ssl that contradicts rediss://"),
        ("rediss://h?ssl_cert_reqs=never", "has a parameter ssl_cert_reqs that is not none, optional or required"),
        ("redis://h?ssl_cert_reqs=none", "has parameters of TLS"),
        ("rediss://h?ssl_ca_cert=/ca.pem", "has a parameter ssl_ca_cert that flysync does not know"),
        ("redis://h?keyPrefix=x", "has a parameter keyPrefix that flysync does not know"),
        ("redis://h?hunter2=1", "has a parameter that flysync does not know"),
        ("unix://run/redis.sock", "has no path"),
        ("unix://", "has no path"),
    ],
)
def test_what_cannot_be_meant_is_named(text: str, words: str) -> None:
    """Before anything is opened, and with nothing of a password."""
    with pytest.raises(ConfigError) as caught:
        loading.load([Source(label="environment", values={"REDIS_URL": text})])

    message = caught.value.message
    assert any(message.startswith(f"REDIS_URL (environment) {one}") for one in words.split("|")), message
    assert not {PASSWORD, "ter2", "hun"} & set(message.replace("/", " ").replace("=", " ").split())
    assert PASSWORD not in message


def test_what_is_ignored_is_said() -> None:
    """But for an address family: either is taken anyway."""
    values = {"REDIS_URL": "redis://h?family=4&connectTimeout=hunter2&enableReadyCheck=true"}
    (note,) = loading.load([Source(label="environment", values=values)]).notes

    assert ("setting_ignored", ("REDIS_URL",)) == (note.code, note.names)
    assert "REDIS_URL (environment): connectTimeout, enableReadyCheck" in note.message
    assert PASSWORD not in note.message


def test_an_address_that_was_read_is_read_again() -> None:
    """What is kept in the keyring passes here once more."""
    once = readers.redis("redis://u:a%2Fb@h:1/2?tls=1").reveal()

    assert once == readers.redis(once).reveal() == "rediss://u:a%2Fb@h:1/2"
