"""RabbitMQ as a live source: its firehose, and its events of connections.

The firehose (`rabbitmqctl trace_on -p VHOST`) publishes a copy of each message when it is published and when
it is delivered, with its body. The broker itself makes the copies, so TLS hides nothing. On the broker are

- one queue of ours, bound to amq.rabbitmq.trace and, if its plugin is on, to amq.rabbitmq.event. It is
  exclusive, auto-deleting, and bounded in messages and bytes; a full queue drops its oldest messages. So a
  watch that is too slow never fills the broker's memory;
- a second queue, to which the broker dead-letters the dropped messages. It is not consumed: it is purged now
  and then, and the answer to the purge has the number of lost messages;
- probes, once a second (`visibility`).

Exchanges are declared passively. No queue of the cloud is touched.

The firehose holds no times, so a message gets its time of arrival. When the connection breaks, messages are
unseen from the last arrival until the first traced probe on the next connection.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Generator
from typing import Any

import pika
from pika import exceptions

from tracer.capture.live import monotonic_s, wall_ns
from tracer.capture.rabbitmq.broker import CONNECT_S, Broker, allow, refusal
from tracer.capture.rabbitmq.connection import FirehoseConnection, Step, listen
from tracer.capture.rabbitmq.frames import Deliveries
from tracer.capture.rabbitmq.messages import OWN, TRACE, Delivery, Firehose
from tracer.capture.rabbitmq.visibility import Probes, Visibility
from tracer.errors import SourceError
from tracer.model import Capture, Endpoint, Heard

__all__ = ["RabbitMQ"]

BATCH = 256
"""Messages that are handed over at once."""
FLUSH_S = 0.02
"""Longest time that a message waits for its batch."""
PROBE_S = 1.0
FIRST_S = 5.0
"""Longest wait for the first answers."""
LEAVE_S = 2.0
"""Longest wait, at the end, for messages that the broker still has."""
BACK_OFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
"""Pauses before the attempts to reconnect; the last one is repeated."""
BEHIND_S = 5.0
"""A longer delay of a probe is reported in `state`."""

DeliverHeard = Callable[[list[Heard], int], None]


class RabbitMQ:
    """The firehose of one vhost of one broker.

    `read` hands over its messages; `news` and `unseen` report what happened to the connection.
    """

    ends_on_stop = True

    def __init__(self, broker: Broker, capture: Capture) -> None:
        self.broker = broker
        self.capture = capture
        self.dropped = 0
        """Messages that the broker dropped because our queue was full."""
        self.knows_peers = False
        """An event exchange reports who is connected."""
        self._firehose = Firehose(capture, Endpoint("0.0.0.0", int(broker.parameters.port)))  # noqa: S104
        self._visibility = Visibility(broker.name)
        self._deliver: DeliverHeard | None = None
        self._batch: list[Delivery] = []
        self._connection: FirehoseConnection | None = None
        self._error: str | None = None
        self._stop = threading.Event()
        self._left_s = 0.0
        self._forget_connection()

    def _forget_connection(self) -> None:
        self._queue = OWN + secrets.token_hex(8)
        self._lost_queue = self._queue + ".lost"
        self._channel: Any = None
        self._side: Any = None
        """The channel of probes, which the broker may refuse."""
        self._ready = False
        self._setup: Generator[Step, Any, None] | None = None
        self._probes = Probes()
        self._probed_s = 0.0
        self._purging = False
        self._leaving = 0
        """Number of the last probe of the run; once it is back, all messages before it are here."""
        self._counts_last = False
        """All messages are here, and the last purge counts the dropped ones."""

    # --- what a live source offers ---

    def open(self) -> None:
        """Connect and listen; messages are kept from now on. Raises SourceError with what to do."""
        # We report a broken connection ourselves, without the password.
        logging.getLogger("pika").setLevel(logging.CRITICAL + 1)
        until_s = monotonic_s() + CONNECT_S + FIRST_S
        self._connect()
        self._loop(until=lambda: self._is_known() or monotonic_s() > until_s)
        if self._error is not None or not self._ready:
            words = self._error or f"{self.broker.name}: no answer within {CONNECT_S} s"
            self._close()
            raise SourceError(words)
        self.capture.first_ns = self.capture.last_ns = wall_ns()

    def stop(self) -> None:
        """Make `read` hand over the messages that the broker still has, and return."""
        self._stop.set()

    @property
    def _stopping(self) -> bool:
        return self._stop.is_set()

    def read(self, deliver: DeliverHeard) -> None:
        """Hand over messages until `stop`; reconnect when the connection breaks."""
        self._deliver = deliver
        attempt = 0
        while True:
            if self._connection is not None:
                self._loop(until=self._has_left)
                attempt = 0 if self._ready else attempt
            if self._stopping:
                break
            self._broke_off(attempt)
            self._wait(BACK_OFF_S[min(attempt, len(BACK_OFF_S) - 1)])
            attempt += 1
            if not self._stopping:
                self._forget_connection()
                self._connect()
        self._flush()
        self._close()

    def news(self) -> list[tuple[int, str]]:
        """Return the news since the last call: (time in ns, words)."""
        return self._visibility.news()

    def unseen(self) -> list[tuple[int, int]]:
        """Return the times (since, until) in which messages passed unseen, as learnt since the last call."""
        return self._visibility.unseen()

    @property
    def is_blind(self) -> bool:
        """Whether messages pass unseen now."""
        return self._visibility.is_blind

    @property
    def state(self) -> str:
        """The state of the broker in a few words; '' while all is well."""
        return self._visibility.state

    # --- the connection ---

    def _connect(self) -> None:
        def ended(connection: Any, error: BaseException) -> None:
            self._fail(refusal(self.broker, error))
            connection.ioloop.stop()

        self._error = None
        try:
            self._connection = FirehoseConnection(
                self.broker.parameters,
                on_open_callback=self._opened,
                on_open_error_callback=ended,
                on_close_callback=ended,
            )
            self._connection.deliveries = Deliveries(self._arrived, self.capture.anomalies)
        except Exception as error:  # whatever a client library raises: the broker is not there
            self._connection = None
            self._error = refusal(self.broker, error)

    def _fail(self, words: str) -> None:
        self._error = self._error or words
        self._stop_loop()

    def _stop_loop(self) -> None:
        if self._connection is not None:
            self._connection.ioloop.stop()

    def _loop(self, until: Callable[[], bool]) -> None:
        """Run pika's loop until the connection fails or *until* returns True."""
        connection = self._connection
        if connection is None or self._error is not None:
            return
        pending: Any = None

        def tick() -> None:
            nonlocal pending
            self._tick()
            if until():
                self._stop_loop()
            else:
                pending = connection.ioloop.call_later(FLUSH_S, tick)

        tick()
        if self._error is None:
            try:
                connection.ioloop.start()
            except (exceptions.AMQPError, OSError) as error:
                self._fail(refusal(self.broker, error))
        if pending is not None:
            with contextlib.suppress(Exception):
                connection.ioloop.remove_timeout(pending)

    def _close(self) -> None:
        """Close the connection; our queues end with it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.is_open:
            until_s = monotonic_s() + LEAVE_S
            with contextlib.suppress(Exception):
                connection.ioloop.call_later(LEAVE_S, connection.ioloop.stop)
                connection.close()
                while not connection.is_closed and monotonic_s() < until_s:
                    connection.ioloop.start()
        with contextlib.suppress(Exception):
            connection.ioloop.close()

    def _broke_off(self, attempt: int) -> None:
        """Handle a broken connection; at the first attempt, report since when messages are unseen."""
        now_ns = wall_ns()
        words = (self._error or "the connection broke off").removeprefix(f"{self.broker.name}: ")
        self._visibility.state = words
        self._flush()
        # A channel may be refused or cancelled while its connection works. Left open, the connection would
        # keep our queue alive until the broker misses a heartbeat.
        self._close()
        if not attempt:
            self._visibility.lose(self.capture.last_ns or now_ns)
            self._visibility.say(
                f"{words}. RPC is unobserved until it is back: trying to connect again", now_ns
            )
            self._hand_over(self._firehose.reset(now_ns))

    def _wait(self, seconds: float) -> None:
        until_s = monotonic_s() + seconds
        while not self._stopping and (left_s := until_s - monotonic_s()) > 0:
            self._flush()
            self._stop.wait(min(left_s, FLUSH_S))

    # --- setting up: one step after the other, each waits for the broker's answer ---

    def _opened(self, connection: Any) -> None:
        connection.add_on_connection_blocked_callback(self._visibility.blocked)
        connection.add_on_connection_unblocked_callback(self._visibility.unblocked)
        self._setup = self._set_up(connection)
        self._advance(None)

    def _advance(self, answer: Any) -> None:
        if self._setup is None:
            return
        try:
            step = self._setup.send(answer)
        except StopIteration:
            self._setup = None
            return
        step(self._advance)

    def _set_up(self, connection: Any) -> Generator[Step, Any, None]:
        channel = yield lambda done: connection.channel(on_open_callback=done)
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_cancel_callback(lambda _: self._fail(f"{self.broker.name}: our queue is gone"))
        connection.deliveries.channel = channel.channel_number
        self.knows_peers = yield from listen(
            connection, channel, self._queue, self._lost_queue, self._delivered
        )
        if not self.knows_peers and self._deliver is None:
            words = f"which services connect is unknown in vhost {self.broker.vhost!r}: the plugin"
            self._visibility.say(f"{words} rabbitmq_event_exchange reports it, in one vhost, '/' unless set")
        self._side = yield lambda done: connection.channel(on_open_callback=done)
        self._side.add_on_close_callback(self._side_closed)
        self._channel = channel
        self._ready = True
        self._probe()

    def _channel_closed(self, _: Any, error: Any) -> None:
        if self._stopping:
            return
        code, text = getattr(error, "reply_code", 0), str(getattr(error, "reply_text", error))
        broker = self.broker
        words = f"{broker.name}: it refuses: {code} {text}"
        if code == 403:
            words = f"{broker.name}: user {broker.user!r} may not listen there: {allow(broker)}"
        elif code == 404:
            words = f"{broker.name}: vhost {broker.vhost!r} has no exchange {TRACE}: is that RabbitMQ?"
        self._fail(words)

    def _side_closed(self, _: Any, error: Any) -> None:
        """Continue without probes: the user may not publish to our queue. Silence then means nothing."""
        if not self._stopping and self._connection is not None and self._connection.is_open:
            self._side = None
            if getattr(error, "reply_code", 0) == 403:
                words = "may not publish to amq.default: whether trace is on is unknown"
                self._visibility.say(f"user {self.broker.user!r} {words}")

    # --- what arrives ---

    def _delivered(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        """Add a message that came through the client library."""
        headers, message_id = properties.headers or {}, properties.message_id or ""
        self._arrived(method.exchange, method.routing_key, headers, message_id, body)

    def _arrived(
        self, exchange: str, key: str, headers: dict[str, Any], message_id: str, body: bytes
    ) -> None:
        if exchange == TRACE:
            keys = headers.get("routing_keys")
            if keys and type(keys) is list and keys[0] == self._queue:
                self._probes.traced(key, headers)
                return
        elif exchange == "":
            self._probe_returned(message_id)
            return
        self._batch.append((wall_ns(), exchange, key, headers, body))
        if len(self._batch) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if self._deliver is None:
            self._batch = batch
            return
        if batch:
            self.capture.last_ns = batch[-1][0]
        self._hand_over(self._firehose.read(batch))

    def _hand_over(self, heard: list[Heard]) -> None:
        if self._deliver is not None:
            self._deliver(heard, wall_ns())

    def _tick(self) -> None:
        self._flush()
        now_s = monotonic_s()
        if self._ready and now_s - self._probed_s >= PROBE_S:
            self._probed_s = now_s
            self._probe()
            self._count_lost()

    # --- probes ---

    def _probe(self) -> None:
        if self._side is not None and self._side.is_open:
            probe = pika.BasicProperties(message_id=self._probes.next(wall_ns()))
            self._side.basic_publish("", self._queue, b"", probe)

    def _probe_returned(self, message_id: str) -> None:
        sent_ns, is_on = self._probes.came_back(message_id)
        if not sent_ns:
            return
        if is_on:
            self._probes.finds_trace_off = False
            self._visibility.regain(sent_ns)
            behind_s = (wall_ns() - sent_ns) / 1e9
            self._visibility.state = f"{behind_s:.0f} s behind" if behind_s > BEHIND_S else ""
            self.capture.last_ns = max(self.capture.last_ns or 0, sent_ns)
        elif not self._probes.finds_trace_off:
            self._probes.finds_trace_off = True
            self._visibility.lose(self.capture.last_ns or sent_ns)
            self._visibility.state = "trace is off"
            self._visibility.say(
                f"trace is off, so RPC is unobserved: rabbitmqctl trace_on -p {self.broker.vhost}"
                " switches it on (the broker then publishes and delivers each message once more),"
                " trace_off off again"
            )

    def _is_known(self) -> bool:
        """Return whether it is known if trace is on: the first probe is back, or probes are refused."""
        return self._ready and (self._probes.returned > 0 or self._side is None)

    def _has_left(self) -> bool:
        """Return whether, after `stop`, all messages are here and the dropped ones are counted."""
        if not self._stopping:
            return False
        if not self._leaving:
            self._left_s = monotonic_s() + LEAVE_S
            self._probe()
            self._leaving = self._probes.sent
        if not self._ready or monotonic_s() > self._left_s:
            return True
        if self._side is not None and self._probes.returned < self._leaving:
            return False
        if not self._purging and not self._counts_last:
            self._counts_last = True
            self._count_lost()
        return not self._purging

    def _count_lost(self) -> None:
        """Purge the queue of dropped messages; the answer has their number."""
        if not self._purging:
            self._purging = True
            self._channel.queue_purge(self._lost_queue, callback=self._counted)

    def _counted(self, frame: Any) -> None:
        self._purging = False
        lost = int(frame.method.message_count)
        if lost:
            self.dropped += lost
