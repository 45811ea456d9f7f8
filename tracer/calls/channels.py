"""What is said of messages on each channel of a broker's connections.

A client acknowledges or rejects its deliveries, by their tags; the broker confirms or refuses what a client
publishes, in order. The same methods serve both: their direction tells them apart.
"""

from __future__ import annotations

from collections import OrderedDict

from tracer.calls.rpc_facts import facts_of, reply_text, set_result
from tracer.model import BOTH, TO_CLIENT, AmqpContent, AmqpMethod, Call, Connection
from tracer.model.tables import trim

__all__ = ["Channel", "Channels"]

UNACKED_LIMIT = 4_096
"""Unacknowledged deliveries of one channel; RabbitMQ's prefetch is rarely more than some hundreds."""
EARLY_LIMIT = 256
"""Acknowledgements of one channel that wait for their delivery; a hole delays it by a second at most."""
OUTSTANDING_LIMIT = 64
"""Publishes of one channel; without confirms nothing takes them off the list."""
CONFIRMING, CHANNELS = 50_000, 64
"""Connections on which the broker confirms, or a client wants no acknowledgements, and channels of each, that
are remembered."""

Channel = tuple[int, int]
"""Connection number and channel."""


class Channels:
    """Follows the deliveries that wait for an acknowledgement, and the publishes that wait for a confirm."""

    def __init__(self) -> None:
        self._no_ack: dict[Channel, set[str]] = {}
        """Channel -> tags of its consumers that acknowledge nothing."""
        self._asks_no_ack: OrderedDict[int, set[int]] = OrderedDict()
        """Connection number -> channels that asked for no-ack without a known tag: by basic.consume, whose
        -ok names the tag, or by basic.get."""
        self._unacked: dict[Channel, OrderedDict[int, Call]] = {}
        """Channel -> delivery tag -> call."""
        self._early: dict[Channel, OrderedDict[int, AmqpMethod]] = {}
        """Channel -> delivery tag -> acknowledgement that came before its delivery: a hole held up the
        delivery in reassembly, and the other direction went on."""
        self._outstanding: dict[Channel, list[Call]] = {}
        """Channel -> its latest publishes, to which a nack or an error of the broker may belong."""
        self._confirming: OrderedDict[int, set[int]] = OrderedDict()
        """Connection number -> channels on which the broker confirms what is published."""
        self._known: dict[int, set[Channel]] = {}
        """Connection number -> its channels in these tables."""

    def _remember(self, channel: Channel) -> None:
        self._known.setdefault(channel[0], set()).add(channel)

    # --- what a client publishes ---

    def published(self, channel: Channel, call: Call) -> None:
        """Record that a client has published *call* on *channel*."""
        outstanding = self._outstanding.get(channel)
        if outstanding is None:
            outstanding = self._outstanding[channel] = []
            self._remember(channel)
        outstanding.append(call)
        if len(outstanding) > OUTSTANDING_LIMIT:
            facts_of(outstanding.pop(0)).unconfirmed = False

    def latest(self, channel: Channel) -> Call | None:
        """Return the latest publish on *channel*."""
        outstanding = self._outstanding.get(channel)
        return outstanding[-1] if outstanding else None

    def is_confirmed(self, connection: Connection, channel: int) -> bool:
        """Return whether the broker confirms what is published on *channel*, and the capture shows that."""
        return connection.seen == BOTH and channel in self._confirming.get(connection.number, ())

    def _confirms(self, channel: Channel) -> None:
        """Record that the broker confirms what is published on a channel."""
        channels = self._confirming.get(channel[0])
        if channels is None:
            channels = self._confirming[channel[0]] = set()
            trim(self._confirming, CONFIRMING)
        if len(channels) < CHANNELS:
            channels.add(channel[1])

    def _confirmed(self, channel: Channel, message: AmqpMethod) -> list[Call]:
        """Return the calls that the broker's nack refuses; an ack confirms them and changes nothing.

        Delivery tags of confirms count from confirm.select, which a capture may not hold, so a confirm is
        attributed to the oldest publish that is not confirmed.
        """
        self._confirms(channel)
        outstanding = self._outstanding.get(channel)
        if not outstanding:
            return []
        if message.arguments.get("multiple"):
            calls, outstanding[:] = outstanding[:], []
        else:
            calls = [outstanding.pop(0)]
        for call in calls:
            facts_of(call).unconfirmed = False
            if message.name != "basic.ack":
                call.result = "error"
                call.error = "the broker refused the message (basic.nack)"
        return calls if message.name != "basic.ack" else []

    def _refused(self, channel: Channel, message: AmqpMethod) -> list[Call]:
        """Return the publish that the broker answers with a channel error."""
        outstanding = self._outstanding.pop(channel, [])
        if not outstanding:
            return []
        # The error closes the channel at once, so the latest publish has caused it.
        call = outstanding[-1]
        call.result = "error"
        call.error = reply_text(message)
        call.ended_ns = message.time_ns
        return [call]

    # --- what a consumer gets ---

    def delivered(self, channel: Channel, tag: int, call: Call, time_ns: int) -> None:
        """Record that *call* was delivered at *time_ns*, and waits for the acknowledgement of *tag*."""
        waiting = self._unacked.get(channel)
        if waiting is None:
            waiting = self._unacked[channel] = OrderedDict()
            self._remember(channel)
        waiting[tag] = call
        # It grows where the consumer acknowledges nothing, or its acknowledgements are not captured.
        trim(waiting, UNACKED_LIMIT)
        waits = self._early.get(channel)
        early = waits.pop(tag, None) if waits else None
        # An older acknowledgement belongs to an earlier channel of this number: tags start again at 1.
        if early is not None and early.time_ns >= time_ns:
            self._acknowledged(channel, early)

    def is_passed_on(self, channel: Channel, call: Call, tag: object) -> bool:
        """Return whether a proxy passes a delivery on: same channel, same tag, to another client.

        The consumer is the last that gets it. The bytes on both sides of a proxy for TCP are the same.
        """
        before = facts_of(call).consumer
        if before is None or before.connection.is_reported or before.connection.number == channel[0]:
            return False
        return self._unacked.get((before.connection.number, channel[1]), {}).get(tag) is call  # type: ignore[call-overload]

    def acknowledges_nothing(self, channel: Channel, message: AmqpContent) -> bool:
        """Return whether the consumer that gets *message* acknowledges nothing."""
        if message.name == "basic.get-ok":
            return channel[1] in self._asks_no_ack.get(channel[0], ())
        return str(message.arguments.get("consumer_tag", "")) in self._no_ack.get(channel, ())

    def _consumes(self, channel: Channel, message: AmqpMethod) -> None:
        """Record a consumer that acknowledges nothing (no-ack, AMQP 0-9-1 section 1.8.3.3)."""
        tag = str(message.arguments.get("consumer_tag", ""))
        # A client may leave the tag empty; then the server chooses one and names it in consume-ok.
        if message.name == "basic.consume-ok":
            if channel[1] not in self._asks_no_ack.get(channel[0], ()):
                return
            self._asks_no_ack[channel[0]].discard(channel[1])
        elif message.name == "basic.get" or not tag:
            asks = self._asks_no_ack.setdefault(channel[0], set())
            trim(self._asks_no_ack, CONFIRMING)
            if not message.arguments.get("no_ack"):
                asks.discard(channel[1])
            elif len(asks) < CHANNELS:
                asks.add(channel[1])
            return
        elif not message.arguments.get("no_ack"):
            self._no_ack.get(channel, set()).discard(tag)
            return
        tags = self._no_ack.get(channel)
        if tags is None:
            tags = self._no_ack[channel] = set()
            self._remember(channel)
        if len(tags) < UNACKED_LIMIT:
            tags.add(tag)

    def _acknowledged(self, channel: Channel, message: AmqpMethod) -> list[Call]:
        """Return the calls whose deliveries a client acknowledges or rejects."""
        tag = message.arguments.get("delivery_tag")
        if not isinstance(tag, int):
            return []
        waiting: OrderedDict[int, Call] = self._unacked.get(channel) or OrderedDict()
        # `multiple`: all deliveries up to this tag (AMQP 0-9-1 section 1.8.3.13).
        several = bool(message.arguments.get("multiple"))
        tags = [t for t in waiting if t <= tag] if several else [tag]
        if not several and tag not in waiting:
            early = self._early.get(channel)
            if early is None:
                early = self._early[channel] = OrderedDict()
                self._remember(channel)
            early[tag] = message
            trim(early, EARLY_LIMIT)
        calls = [waiting.pop(t) for t in tags if t in waiting]
        for call in calls:
            facts = facts_of(call)
            if message.name == "basic.ack":
                set_result(call, "ok")
            else:
                # Requeued: the message waits for a consumer again.
                set_result(call, "undelivered" if message.arguments.get("requeue") else "error")
            call.ended_ns = message.time_ns
            call.fate = message.frames
            call.closed = facts.mode != "call"
        return calls

    # --- what is said of both ---

    def method(self, channel: Channel, message: AmqpMethod) -> list[Call]:
        """Return the calls whose fate *message* decides: acks, nacks, rejects, channel errors."""
        if message.name in ("basic.ack", "basic.nack", "basic.reject"):
            # The same methods in two roles: from the broker they confirm publishes, from a client they
            # acknowledge deliveries.
            if message.direction == TO_CLIENT:
                return self._confirmed(channel, message)
            return self._acknowledged(channel, message)
        if message.name == "channel.close" and message.direction == TO_CLIENT:
            return self._refused(channel, message)
        if message.name in ("basic.consume", "basic.consume-ok", "basic.get"):
            self._consumes(channel, message)
        elif message.name == "confirm.select":
            self._confirms(channel)
        return []

    def closed(self, connection: Connection) -> list[Call]:
        """Forget the channels of a connection that has ended.

        Returns the calls whose acknowledgements could not be seen: the broker's direction alone was captured,
        so *unacked* becomes `?`. Other results stay.
        """
        number = connection.number
        own = sorted(self._known.pop(number, ()))
        unseen: list[Call] = []
        if connection.seen != BOTH:
            waiting = [self._unacked[channel] for channel in own if channel in self._unacked]
            unseen = [call for calls in waiting for call in calls.values() if call.result == "unacked"]
            for call in unseen:
                call.result = "?"
        for table in (self._unacked, self._early, self._outstanding, self._no_ack):
            for channel in own:
                table.pop(channel, None)
        self._confirming.pop(number, None)
        self._asks_no_ack.pop(number, None)
        return unseen
