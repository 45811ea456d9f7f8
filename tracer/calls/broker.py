"""The log of the broker, as the wire shows it: consumers, blocked publishers, connections lost and made anew.

Only the latest events of each queue and of each client are kept; the methods of messages and acknowledgements
are not looked at here, so a busy broker costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence

from tracer.calls.bodies import clean
from tracer.calls.rpc_facts import reply_text
from tracer.model import TO_CLIENT, AmqpMethod, BrokerEvent, BrokerEventKind, Closed, Connection, Returns
from tracer.model.tables import trim

__all__ = ["BrokerLog"]

MOST_KEYS = 50_000
"""Consumers and connections that are remembered."""
MOST_QUEUES, MOST_CLIENTS = 16_000, 4_000
PER_QUEUE, PER_CLIENT = 16, 64
"""Events of each. With the two limits above: half a million events at most."""
_SILENT_NS = 60_000_000_000
"""The heartbeat that RabbitMQ proposes; a broker gives a client up that is silent for longer."""

_Consumer = tuple[int, int, str]
"""Connection, channel, tag."""


class BrokerLog:
    """Collects the events at all brokers; implements `Broker`."""

    def __init__(self) -> None:
        self._of_queue: OrderedDict[str, deque[BrokerEvent]] = OrderedDict()
        self._of_client: OrderedDict[str, deque[BrokerEvent]] = OrderedDict()
        self._returns: OrderedDict[str, Returns] = OrderedDict()
        self._on: dict[int, dict[tuple[int, str], str]] = {}
        """Connection -> (channel, tag) of a consumer -> queue."""
        self._count = 0
        """Consumers that are remembered."""
        self._consumers: dict[str, set[_Consumer]] = {}
        self._asked: OrderedDict[tuple[int, int], str] = OrderedDict()
        """(connection, channel) -> queue of a basic.consume without a tag, which the broker chooses."""
        self._programs: OrderedDict[int, str] = OrderedDict()
        """Connection -> program and process, of handshakes that go on."""
        self._reasons: OrderedDict[int, tuple[bool, str]] = OrderedDict()
        """Connection -> (whether the broker closes it, its words), between connection.close and its end."""

    # --- what comes in ---

    def method(self, message: AmqpMethod) -> None:
        """Record what *message* tells of consumers, publishers and connections."""
        name, arguments, connection = message.name, message.arguments, message.connection
        kind, _, what = name.partition(".")
        number, by_broker = connection.number, message.direction == TO_CLIENT
        if kind == "connection":
            self._of_connection(what, message)
        elif name == "basic.consume":
            tag, queue = str(arguments.get("consumer_tag", "")), str(arguments.get("queue", ""))
            if tag:
                self._comes((number, message.channel, tag), queue, connection, message.time_ns)
            else:
                self._asked[number, message.channel] = queue
                trim(self._asked, MOST_KEYS)
        elif name == "basic.consume-ok":
            asked = self._asked.pop((number, message.channel), "")
            if asked:
                tag = str(arguments.get("consumer_tag", ""))
                self._comes((number, message.channel, tag), asked, connection, message.time_ns)
        elif name == "basic.cancel":
            consumer = (number, message.channel, str(arguments.get("consumer_tag", "")))
            words = f"{'the broker' if by_broker else 'its client'} cancelled the consumer (basic.cancel)"
            self._goes(consumer, connection, message.time_ns, by_broker, words)
        elif name == "channel.close":
            words = f"{'the broker' if by_broker else 'its client'} closed the channel of the consumer"
            if by_broker or arguments.get("reply_code", 200) != 200:
                words += f": {reply_text(message)}"
            for channel, tag in [*self._on.get(number, ())]:
                if channel == message.channel:
                    self._goes((number, channel, tag), connection, message.time_ns, by_broker, words)

    def _of_connection(self, what: str, message: AmqpMethod) -> None:
        connection, arguments, number = message.connection, message.arguments, message.connection.number
        if what == "start-ok":
            program, _, rest = str(arguments.get("connection_name", "")).partition(":")
            self._programs[number] = f"{program}:{rest.partition(':')[0]}"[:100]
            trim(self._programs, MOST_KEYS)
        elif what == "open-ok":
            program = self._programs.pop(number, "")
            self._event("opened", connection, message.time_ns, words=program.strip(":"))
        elif what == "blocked":
            reason = clean(str(arguments.get("reason", "")))
            self._event("blocked", connection, message.time_ns, by_broker=True, words=reason)
        elif what == "unblocked":
            self._event("unblocked", connection, message.time_ns, by_broker=True)
        elif what == "close":
            self._reasons[number] = message.direction == TO_CLIENT, reply_text(message)
            trim(self._reasons, MOST_KEYS)

    def delivers(self, connection: Connection, channel: int, tag: str, queue: str, time_ns: int) -> None:
        """Record that a delivery shows a consumer, whose beginning may not be in the capture."""
        own = self._on.get(connection.number)
        # A service has a few consumers on a connection. Of a client that has many, nothing more is learnt.
        if queue and (own is None or (len(own) < PER_CLIENT and queue not in own.values())):
            self._comes((connection.number, channel, tag), queue, connection, time_ns)

    def returned(self, queue: str, time_ns: int, text: str) -> None:
        """Record that the broker returned a message for *queue*."""
        before = self._returns.get(queue)
        often, first_ns = (before.often, before.first_ns) if before else (0, time_ns)
        self._returns[queue] = Returns(often + 1, first_ns, time_ns, text)
        trim(self._returns, MOST_KEYS)

    def closed(self, closed: Closed) -> None:
        """Record the end of a connection, and of its consumers."""
        connection, number = closed.connection, closed.connection.number
        self._programs.pop(number, None)
        by_broker, said = self._reasons.pop(number, (closed.direction == TO_CLIENT, ""))
        if closed.how in ("idle", "end", "reused"):
            # Nothing was seen to end.
            for (channel, tag), queue in self._on.pop(number, {}).items():
                self._forget((number, channel, tag), queue)
            return
        who = "the broker" if by_broker else "the client"
        words = f"{who} {'reset' if closed.how == 'reset' else 'closed'} the connection"
        if said:
            words += f": {said}"
        elif by_broker and connection.quiet_ns >= _SILENT_NS:
            seconds = connection.quiet_ns // 1_000_000_000
            words += f", of which it had heard nothing for {seconds} s (heartbeats missed)"
        for channel, tag in [*self._on.get(number, ())]:
            self._goes((number, channel, tag), connection, closed.time_ns, by_broker, words)
        events = self._of_client.get(connection.client.address, ())
        # Of a FIN from both ends the first one counts.
        if not any(e.kind == "lost" and e.connection is connection for e in events):
            self._event("lost", connection, closed.time_ns, by_broker=by_broker, words=words)

    # --- what is kept ---

    def _comes(self, consumer: _Consumer, queue: str, connection: Connection, time_ns: int) -> None:
        if self._count >= MOST_KEYS:
            return
        own = self._on.setdefault(consumer[0], {})
        if consumer[1:] in own:
            return
        own[consumer[1:]] = queue
        self._count += 1
        self._consumers.setdefault(queue, set()).add(consumer)
        self._event("consuming", connection, time_ns, queue)

    def _goes(
        self, consumer: _Consumer, connection: Connection, time_ns: int, by_broker: bool, words: str
    ) -> None:
        own = self._on.get(consumer[0], {})
        queue = own.pop(consumer[1:], None)
        if queue is None:
            return
        if not own:
            del self._on[consumer[0]]
        left = self._forget(consumer, queue)
        self._event("gone", connection, time_ns, queue, by_broker, words, left)

    def _forget(self, consumer: _Consumer, queue: str) -> int:
        """Drop *consumer* of *queue*; return how many it has left."""
        self._count -= 1
        consumers = self._consumers.get(queue, set())
        consumers.discard(consumer)
        if not consumers:
            self._consumers.pop(queue, None)
        return len(consumers)

    def _event(
        self,
        kind: BrokerEventKind,
        connection: Connection,
        time_ns: int,
        queue: str = "",
        by_broker: bool = False,
        words: str = "",
        left: int = 0,
    ) -> None:
        event = BrokerEvent(time_ns, kind, connection, queue, by_broker, words, left)
        if queue:
            _keep(self._of_queue, queue, event, PER_QUEUE, MOST_QUEUES)
        _keep(self._of_client, connection.client.address, event, PER_CLIENT, MOST_CLIENTS)

    # --- Broker ---

    def of_queue(self, queue: str) -> Sequence[BrokerEvent]:
        """Return the latest events of the consumers of *queue*, in order of time."""
        return self._of_queue.get(queue, ())

    def of_client(self, address: str) -> Sequence[BrokerEvent]:
        """Return the latest events of the connections of the clients at *address*, in order of time."""
        return self._of_client.get(address, ())

    def returns(self, queue: str) -> Returns | None:
        """Return the messages for *queue* that came back as unroutable; None if none did."""
        return self._returns.get(queue)


def _keep(
    table: OrderedDict[str, deque[BrokerEvent]], key: str, event: BrokerEvent, most: int, keys: int
) -> None:
    events = table.get(key)
    if events is None:
        events = table[key] = deque(maxlen=most)
        trim(table, keys)
    events.append(event)
