"""The broker that a URL of `--amqp` names, and messages about it that never hold its password."""

from __future__ import annotations

import os
import re
import socket
import ssl
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urlsplit

import pika
from pika import exceptions

from tracer.errors import UsageError

__all__ = ["PASSWORD", "Broker", "allow", "broker_of", "causes", "refusal"]

PASSWORD = "TRACER_AMQP_PASSWORD"  # noqa: S105  # the variable that may hold it, instead of the URL
HEARTBEAT_S = 20
"""A broker that sends nothing for twice this time is gone."""
CONNECT_S = 10
FORM = "write amqp://USER:PASSWORD@HOST:5672/VHOST"


@dataclass(frozen=True, slots=True)
class Broker:
    """One vhost of one broker."""

    name: str
    """amqp://host:port/vhost: without user and password."""
    user: str
    vhost: str
    parameters: pika.ConnectionParameters = field(repr=False)


def broker_of(url: str) -> Broker:
    """Return the broker of *url*. Raises UsageError; its message holds no password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
        # Raises for an empty label and for one that is too long.
        (host or "").encode("idna")
    except ValueError:
        raise UsageError(f"--amqp: that is no URL: {FORM}") from None
    if parts.scheme not in ("amqp", "amqps"):
        raise UsageError(f"--amqp: a broker's URL begins with amqp://, or amqps:// for TLS: {FORM}")
    if not host:
        raise UsageError(f"--amqp: the URL names no host: {FORM}")
    if "@" in url and "@" not in parts.netloc:
        # A / ? or # in the password ends the host part: the rest of the password was parsed as port and
        # vhost, and would be shown.
        raise UsageError(f"--amqp: write / ? # and @ of a password as %2F %3F %23 and %40: {FORM}")
    secure = parts.scheme == "amqps"
    port = port or (5671 if secure else 5672)
    # An empty path is the vhost '/', and so is %2F.
    vhost = unquote(parts.path[1:]) or "/"
    user = unquote(parts.username or "guest")
    given = parts.password
    password = unquote(given) if given is not None else os.environ.get(PASSWORD, "guest")
    parameters = pika.ConnectionParameters(
        host=host,
        port=port,
        virtual_host=vhost,
        credentials=pika.PlainCredentials(user, password),
        heartbeat=HEARTBEAT_S,
        socket_timeout=CONNECT_S,
        stack_timeout=CONNECT_S,
        ssl_options=pika.SSLOptions(ssl.create_default_context(), host) if secure else None,
        client_properties={"connection_name": "tracer watch"},
    )
    shown = f"[{host}]" if ":" in host else host
    return Broker(f"{parts.scheme}://{shown}:{port}/{quote(vhost, safe='')}", user, vhost, parameters)


def refusal(broker: Broker, error: BaseException) -> str:
    """Return in one line why *broker* cannot be used, and what to do about it."""
    # pika wraps errors in each other; the innermost known one is the cause.
    for each in causes(error):
        if isinstance(each, exceptions.ProbableAuthenticationError | exceptions.AuthenticationError):
            return f"{broker.name}: it refuses user {broker.user!r}: look at user and password in the URL"
        if isinstance(each, exceptions.ProbableAccessDeniedError | exceptions.ConnectionClosedByBroker):
            return f"{broker.name}: {_closed(broker, str(each))}"
        if isinstance(each, ssl.SSLError):
            what = each.verify_message if isinstance(each, ssl.SSLCertVerificationError) else each.reason
            return f"{broker.name}: no TLS with it: {what} (SSL_CERT_FILE names your own authority)"
        if isinstance(each, socket.gaierror):
            return f"{broker.name}: no such host"
        if isinstance(each, exceptions.IncompatibleProtocolError):
            return f"{broker.name}: what listens there does not speak AMQP 0-9-1: look at the port"
        if isinstance(each, exceptions.AMQPHeartbeatTimeout):
            return f"{broker.name}: it sends no heartbeats any more"
        if isinstance(each, TimeoutError) or "Timeout" in type(each).__name__:
            return f"{broker.name}: no answer within {CONNECT_S} s: look at address and port"
        if isinstance(each, OSError) and each.strerror:
            return f"{broker.name}: cannot be reached: {each.strerror}"
    return f"{broker.name}: the connection broke off"


def allow(broker: Broker) -> str:
    """Return the command that gives the user exactly the permissions that listening needs."""
    rights = r"'^tracer\.' '^(tracer\.|amq\.default$)' '^(tracer\.|amq\.rabbitmq\.)'"
    return f"rabbitmqctl set_permissions -p {broker.vhost} {broker.user} {rights}"


def _closed(broker: Broker, said: str) -> str:
    """Return why the broker closed the connection, by *said*, the text of pika's exception."""
    found = re.search(r"\((\d+)\) (.*)", said, re.DOTALL)
    code, text = (int(found[1]), found[2].strip("'\"")) if found else (0, said)
    if code == 403:
        return f"it refuses user {broker.user!r}: look at user and password in the URL"
    if "not found" in text:
        return f"it has no vhost {broker.vhost!r}: `rabbitmqctl list_vhosts` tells which"
    if code == 530:
        return f"user {broker.user!r} may not enter vhost {broker.vhost!r}: {allow(broker)}"
    return f"it closes the connection: {' '.join(text.split())[:200]}"


def causes(error: BaseException) -> list[BaseException]:
    """Return *error* and the errors that it wraps, the innermost first, each once.

    Errors of pika may wrap each other in a circle.
    """
    found = [error]
    for each in found:
        wrapped = [*each.args, *getattr(each, "exceptions", ())]
        wrapped += [getattr(each, name, None) for name in ("exception", "last_exception", "__cause__")]
        for inner in wrapped:
            if isinstance(inner, BaseException) and not any(inner is known for known in found):
                found.append(inner)
    return found[::-1]
