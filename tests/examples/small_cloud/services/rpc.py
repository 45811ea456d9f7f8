"""Messages between the services, by RabbitMQ, in the envelopes of oslo.messaging."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable
from typing import Any

import pika
from pika.adapters.blocking_connection import BlockingChannel

from services.addresses import BROKER

EXCHANGE = "nova"
Context = dict[str, Any]
"""Who asks for what: request_id, auth_token, break; in each message, as _context_NAME."""


class Peer:
    """One service at the broker: publishes on one connection, consumes on another, as oslo.messaging does."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._out = self._channel()
        self._out.confirm_delivery()
        self._out.exchange_declare(EXCHANGE, "topic")
        self._in = self._channel()
        self._reply_queue = f"reply_{uuid.uuid4().hex}"
        self._replies: BlockingChannel | None = None

    def _channel(self) -> BlockingChannel:
        name = f"{self._program}:{os.getpid()}:{uuid.uuid4()}"
        credentials = pika.PlainCredentials("guest", "guest")
        parameters = pika.ConnectionParameters(
            BROKER, credentials=credentials, heartbeat=0, client_properties={"connection_name": name}
        )
        return pika.BlockingConnection(parameters).channel()

    def cast(self, topic: str, method: str, args: Any, context: Context) -> None:
        """Ask without waiting. Raises pika.exceptions.UnroutableError when there is nobody to ask."""
        self._publish(EXCHANGE, topic, {"method": method, "args": args, "version": "6.0"} | _named(context))

    def call(self, topic: str, method: str, args: Any, context: Context) -> Any:
        """Ask, wait, and return the result. Raises RuntimeError when the other side failed."""
        if self._replies is None:
            self._replies = self._channel()
            self._replies.queue_declare(self._reply_queue, auto_delete=True)
        asked = {"_msg_id": uuid.uuid4().hex, "_reply_q": self._reply_queue, "_timeout": None}
        self._publish(
            EXCHANGE, topic, {"method": method, "args": args, "version": "6.0"} | asked | _named(context)
        )
        for delivered, _, body in self._replies.consume(self._reply_queue):
            self._replies.basic_ack(delivered.delivery_tag)
            told = json.loads(json.loads(body)["oslo.message"])
            if told["_msg_id"] == asked["_msg_id"]:
                break
        if told["failure"]:
            raise RuntimeError(json.loads(told["failure"])["message"])
        return told["result"]

    def serve(self, *topics: str, answer: Callable[[str, Any, Context], Any]) -> None:
        """Answer messages for ever: method, arguments and context; says `ready` when it can."""

        def take(channel: BlockingChannel, delivered: Any, _: Any, body: bytes) -> None:
            channel.basic_ack(delivered.delivery_tag)
            asked = json.loads(json.loads(body)["oslo.message"])
            context = {name[9:]: value for name, value in asked.items() if name.startswith("_context_")}
            result, failure = None, None
            try:
                result = answer(asked["method"], asked["args"], context)
            except RuntimeError as error:
                failure = json.dumps(
                    {"class": "NoValidHost_Remote", "module": "nova.exception", "message": str(error)}
                )
            if "_msg_id" in asked:
                told = {"result": result, "failure": failure, "ending": True, "_msg_id": asked["_msg_id"]}
                self._publish("", asked["_reply_q"], told)

        for topic in topics:
            self._in.queue_declare(topic)
            self._in.queue_bind(topic, EXCHANGE, topic)
            self._in.basic_consume(topic, take)
        print("ready", flush=True)
        self._in.start_consuming()

    def _publish(self, exchange: str, key: str, message: dict[str, Any]) -> None:
        message["_unique_id"] = uuid.uuid4().hex
        envelope = json.dumps({"oslo.version": "2.0", "oslo.message": json.dumps(message)})
        properties = pika.BasicProperties("application/json", "utf-8")
        self._out.basic_publish(exchange, key, envelope.encode(), properties, mandatory=True)


def versioned(name: str, **data: Any) -> dict[str, Any]:
    """An object as oslo.versionedobjects writes it."""
    return {"nova_object.name": name, "nova_object.namespace": "nova", "nova_object.data": data}


def _named(context: Context) -> dict[str, Any]:
    return {f"_context_{name}": value for name, value in context.items()}
