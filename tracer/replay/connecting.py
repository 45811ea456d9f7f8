"""A broker's URL, and a connection to it; whatever goes wrong, the password is not told."""

from __future__ import annotations

import socket

import pika
from pika import exceptions as failures
from pika.adapters.blocking_connection import BlockingConnection

from tracer.capture.rabbitmq.broker import broker_of, causes
from tracer.errors import SourceError
from tracer.reports import plain

__all__ = ["broker_at", "connect"]

BLOCKED_S = 60.0
"""A broker that is out of memory or disk takes nothing: so long is it waited for."""


def broker_at(url: str) -> tuple[pika.ConnectionParameters, str]:
    """Return how to connect to the broker that *url* names, and how to name it to people.

    The URL is as of `tracer watch --amqp`. Raises UsageError, whose words hold no password.
    """
    broker = broker_of(url)
    parameters = broker.parameters
    # A replay waits for what is due, and serves no heartbeat meanwhile.
    parameters.heartbeat = 0
    parameters.blocked_connection_timeout = BLOCKED_S
    host = f"[{parameters.host}]" if ":" in parameters.host else parameters.host
    return parameters, f"{host}:{parameters.port}, vhost {plain(broker.vhost, 255)}"


def connect(parameters: pika.ConnectionParameters, where: str, name: str) -> BlockingConnection:
    """Return a connection that calls itself *name*. Raises SourceError."""
    parameters.client_properties = {"connection_name": name}
    try:
        return BlockingConnection(parameters)
    except failures.ProbableAuthenticationError:
        why = "it refuses this user and password"
    except failures.ProbableAccessDeniedError:
        why = "this user may not enter that vhost, or there is none of that name"
    except failures.IncompatibleProtocolError:
        why = "what answers there does not speak AMQP 0-9-1"
    except (failures.AMQPError, OSError) as error:
        why = _reason(error)
    raise SourceError(f"--amqp {where}: no connection to the broker: {why}")


def _reason(error: BaseException) -> str:
    """Return the innermost reason that the system gave, in a few words."""
    for each in causes(error):
        if isinstance(each, socket.gaierror):
            return "no such host"
        if isinstance(each, OSError) and each.strerror:
            return each.strerror
    return "it did not answer"
