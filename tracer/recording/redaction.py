"""Overwrites secrets in captured packets, in place and without changing lengths.

Tokens, passwords, user data and similar values are replaced by pseudonyms of the same length. Equal secrets
get equal pseudonyms within one run, so a token still joins two calls, and tracer's verdict is that of the
original. Secrets are found by their names, by their form (patterns.py), and, once found, at every other place
in the traffic. Rows sent by a database are overwritten completely: no stage of tracer reads them.

Data are searched in stream order. A packet waits until the possible rest of a secret has come, HELD_NS of
capture time at most; a live caller releases it with `flush` when no packets come. An IP fragment also waits
for the rest of its datagram. Without the rest, or when the datagram is not TCP, the fragment is overwritten
completely, because it may be the middle of a secret. Other packets that are not TCP are searched one by one.
Encrypted and compressed data are not searched.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from bisect import bisect_left, insort
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from heapq import heappop, heappush
from itertools import count

from tracer.capture.layers import Layers
from tracer.model import PacketFields, SegmentFields
from tracer.model.tables import trim
from tracer.openstack.services import DATABASE, PROTOCOL_OF_PORT, ports_of
from tracer.openstack.states import BUILD_TASKS, DELETED, ENDS_CREATION
from tracer.recording import postgres
from tracer.recording.patterns import (
    FRAMING,
    end_of,
    inserted,
    is_mysql_error,
    mysql_login_secret,
    mysql_packets,
    mysql_row,
    mysql_values,
    secrets_in,
    starts,
)
from tracer.recording.streams import MOST_PATCHES, TAIL_BYTES, Fragment, Held, Stream

__all__ = ["Redactor"]

HELD_NS = 1_000_000_000
LONGEST_BYTES = 256 << 10
"""Longest secret that is held as a whole; a longer one is overwritten piece by piece."""
MOST_STREAMS = 20_000
PATCH_BYTES = 1_024
"""Longest patch. The limit bounds how far back patches of a packet can begin."""
MOST_KNOWN, LEAST_KNOWN_BYTES, PROBE_BYTES = 256, 8, 24
"""Limits of the search for known secrets. Shorter ones are not searched for: 'secret' occurs too often."""
_MASK = 0xFFFFFFFF
_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" * 4
_TLS = re.compile(rb"[\x14-\x17]\x03[\0-\x04]")
DATABASES = {port: PROTOCOL_OF_PORT[port] for port in ports_of(DATABASE)}
"""Port of a database -> its decoder, by default."""
_STATES = frozenset(word.encode() for word in {*BUILD_TASKS, *DELETED, *ENDS_CREATION, "building"})
"""States of a server, which a statement may hold as parameters."""


class Redactor:
    """Receives packets and returns them in the same order, with their secrets overwritten.

    *databases*: port of a database -> name of its decoder. What is no PostgreSQL is read as MySQL.
    """

    def __init__(self, databases: Mapping[int, str] = DATABASES) -> None:
        self._layers = Layers()
        self._databases = dict(databases)
        self._held: deque[Held] = deque()
        self._streams: OrderedDict[bytes, Stream] = OrderedDict()
        self._fragments: dict[tuple[int, int], Fragment] = {}
        """(capture, frame) -> fragment of an incomplete datagram"""
        self._arrival = count()
        # A new key in each run: a pseudonym cannot be found by hashing guesses.
        self._key = secrets.token_bytes(16)
        self._known: OrderedDict[bytes, list[bytes]] = OrderedDict()
        """First PROBE_BYTES of a secret -> the secrets that begin with them"""
        self._probe: re.Pattern[bytes] | None = None
        self.overwritten = 0
        """Number of byte ranges that were overwritten."""

    @property
    def holds(self) -> bool:
        """Whether packets wait to be released."""
        return bool(self._held)

    def receive(self, packets: Sequence[PacketFields]) -> list[PacketFields]:
        """Take *packets*; return those, of these and earlier ones, that will not change any more."""
        for packet in packets:
            self._take(packet)
        return list(self._settled(packets[-1][0])) if packets else []

    def flush(self) -> list[PacketFields]:
        """Return all held packets: at the end, or when no packets have come for a while."""
        return list(self._settled(1 << 62))

    def _settled(self, now_ns: int) -> Iterator[PacketFields]:
        held = self._held
        # abs: a packet far in the future comes from a clock that was set back, and would block the others.
        while held and (held[0].is_settled or abs(now_ns - held[0].packet[0]) > HELD_NS):
            each = held.popleft()
            each.place()
            stream = each.stream
            if stream is None:
                yield self._incomplete(each) if isinstance(each, Fragment) else each.packet
                continue
            while each.end < 0:
                self._skip_hole(stream)
                each.place()
            stream = each.stream or stream
            stream.beginning = None
            if each.end > stream.safe:
                self._cut(stream, each.end)
            yield _patched(each, stream)

    # --- streams ---

    def _take(self, packet: PacketFields) -> None:
        held = Held(packet)
        segment = next(iter(self._layers.read((packet,), {})), None)
        fragment_at = self._layers.fragment_at
        if fragment_at >= 0:
            fragment = Fragment(packet, fragment_at, self._layers.fragment_start)
            self._fragments[packet[4]] = fragment
            self._held.append(fragment)
        else:
            self._held.append(held)
            if segment is None:
                held.packet = self._alone(packet)
        if segment is None or not segment[5]:
            return
        if fragment_at >= 0:
            self._complete(segment, held)
        # Only padding may follow the payload, so the last occurrence is the payload itself.
        held.at = packet[1].rfind(segment[5])
        flow, flags = segment[1], segment[4]
        stream = self._streams.get(flow)
        # SYN, or a sequence number far away: another connection uses the same addresses and ports.
        if stream is None or flags & 2 or abs(_ahead(segment[2], stream.next_seq)) > 1 << 28:
            stream = self._streams[flow] = Stream(segment[2], self._port(segment))
            self._streams.move_to_end(flow)
            trim(self._streams, MOST_STREAMS)
        held.stream = stream
        self._place(stream, segment, held)

    def _complete(self, segment: SegmentFields, whole: Held) -> None:
        """Link the fragments of a datagram to the TCP segment in it, if they hold all of the datagram."""
        found = [self._fragments.pop(frame) for frame in segment[8] if frame in self._fragments]
        found.sort(key=lambda fragment: fragment.start)
        datagram = bytearray()
        for fragment in found:
            if fragment.start != len(datagram):
                return
            datagram += fragment.data
        payload_at = datagram.rfind(segment[5])
        # Cut by the snap length, or damaged: bytes outside the stream are not searched, so these fragments
        # stay unlinked and are overwritten completely.
        if segment[6] or payload_at < 0:
            return
        for fragment in found:
            fragment.belongs(whole, payload_at, len(segment[5]))

    def _incomplete(self, fragment: Fragment) -> PacketFields:
        """Return a fragment of an incomplete datagram with all its data overwritten."""
        packet, begin = fragment.packet, fragment.data_at
        self._fragments.pop(packet[4], None)
        kept, data = packet[1][:begin], packet[1][begin:]
        self.overwritten += bool(data)
        return (packet[0], kept + self._pseudonym(data), *packet[2:])

    def _alone(self, packet: PacketFields) -> PacketFields:
        """Return *packet* with the secrets overwritten that can be found in it alone."""
        stream, held = Stream(0, 0), Held(packet)
        stream.data += packet[1]
        held.begin, held.end = 0, len(packet[1])
        self._scan(stream)
        self._cut(stream, held.end)
        return _patched(held, stream)

    def _port(self, segment: SegmentFields) -> int:
        # The sign distinguishes the directions: rows come from the server, logins from the client.
        flow = segment[1]
        size = 8 if len(flow) < 36 else 32
        source, target = (int.from_bytes(flow[size + n : size + n + 2], "big") for n in (0, 2))
        ports = self._databases
        return -source if source in ports else target if target in ports else 0

    def _place(self, stream: Stream, segment: SegmentFields, held: Held) -> None:
        """Add a segment, and those that waited for it, to its stream; after a hole, the segment waits."""
        seq = stream.next_seq + _ahead(segment[2], stream.next_seq)
        waiting = seq, next(self._arrival), segment, held
        if stream.beginning is not None:
            if stream.beginning and seq < stream.beginning[0][0] and stream.at_once:
                self._begin_again(stream)
            stream.beginning.append(waiting)
        heappush(stream.behind, waiting)
        self._read_on(stream)

    def _begin_again(self, stream: Stream) -> None:
        """Restart a stream whose first bytes came after later ones; from now on it waits before it is read.

        This happens at most once for each stream, so that no order of packets is expensive.
        """
        waiting = stream.beginning or []
        self.overwritten -= stream.overwritten
        for _, _, _, held in waiting:
            held.begin = held.end = -1
        stream.begin(stream.next_seq, self._port(waiting[0][2]))
        stream.behind = sorted(waiting)
        stream.at_once = False

    def _read_on(self, stream: Stream) -> None:
        """Append the waiting segments up to the next hole."""
        while stream.at_once and stream.behind and stream.behind[0][0] <= stream.next_seq:
            seq, _, segment, held = heappop(stream.behind)
            self._append(stream, seq, segment, held)

    def _append(self, stream: Stream, seq: int, segment: SegmentFields, held: Held) -> None:
        payload, ahead = segment[5], seq - stream.next_seq
        held.begin = stream.position(seq, len(payload))
        if held.begin < 0:
            # Its bytes lie before the first ones seen, or in a hole that was given up: it is searched alone.
            stream = held.stream = Stream(seq, stream.port)
            held.begin, ahead = 0, 0
        held.end = held.begin + len(payload)
        new = payload[-ahead:] if ahead else payload
        if held.end <= stream.end or not new:
            return
        stream.data += new
        stream.next_seq += len(new)
        if segment[6]:
            # Cut by the snap length: the rest of the payload was not captured.
            stream.go_on(stream.next_seq + segment[6])
        self._scan(stream)

    def _skip_hole(self, stream: Stream) -> None:
        """Give the hole up and go on after it."""
        stream.at_once = True
        stream.go_on(stream.behind[0][0])
        self._read_on(stream)

    # --- secrets ---

    def _scan(self, stream: Stream) -> None:
        if stream.port:
            self._scan_database(stream)
        if stream.port >= 0:
            self._scan_patterns(stream)
        self._scan_known(stream)
        stream.seen = stream.end
        # Bytes before an open secret, an incomplete row and the tail are not needed again.
        begin = min(stream.open.at if stream.open else stream.end, stream.end - TAIL_BYTES)
        if stream.port and stream.row >= 0:
            begin = min(begin, stream.row)
        if begin - stream.base > 64 << 10:
            del stream.data[: begin - stream.base]
            stream.base = begin

    def _scan_database(self, stream: Stream) -> None:
        """Overwrite rows, authentication responses, values of prepared statements and of secret columns."""
        data, base = stream.data, stream.base
        if stream.row < 0:
            # After a hole the packet boundaries are unknown; most packets begin with a segment.
            stream.row = stream.seen
        at = stream.row - base
        if _TLS.match(data, at):
            # Encrypted from here on: it is no longer read as a database's.
            stream.port = 0
            return
        if self._databases[abs(stream.port)] == "postgres":
            self._scan_postgres(stream)
            return
        for begin, end in mysql_packets(data, at):
            if stream.port < 0:
                self._overwrite(stream, mysql_row(data, begin, end), end)
                for quoted in secrets_in(data, begin, end) if is_mysql_error(data, begin, end) else ():
                    self._secret(stream, *quoted)
            elif (values_at := mysql_values(data, begin, end)) < end:
                self._overwrite(stream, values_at, end)
            elif found := mysql_login_secret(data, begin, end):
                self._overwrite(stream, *found)
            else:
                for value in inserted(data, begin, end):
                    self._secret(stream, *value)
            stream.row = end + base

    def _scan_postgres(self, stream: Stream) -> None:
        """Overwrite rows, passwords, parameters, and values of secret columns in INSERT statements."""
        data, base, from_server = stream.data, stream.base, stream.port < 0
        at = stream.row - base
        while stream.row < stream.untyped_to:
            # No message has begun yet, so what has no type may come.
            size = postgres.skipped(data, at, from_server)
            if size < 0:
                return
            at += size
            stream.row = at + base
            stream.untyped_to = 0 if not size or from_server else stream.row + 1
            if size and _TLS.match(data, at):
                stream.port = 0
                return
        while (end := postgres.message_at(data, at, from_server)) is not None and end > 0:
            for secret in postgres.secrets_of(data, at, end, from_server, _STATES):
                self._overwrite(stream, *secret)
            if not from_server:
                for value in inserted(data, at, end):
                    self._secret(stream, *value)
            at = end
            stream.row = at + base
        if end is None:
            # Behind a hole, in the middle of a message: it may be a row.
            self._overwrite(stream, at, len(data))
            stream.row = -1

    def _scan_patterns(self, stream: Stream) -> None:
        data, base = stream.data, stream.base
        at = max(0, stream.seen - base - TAIL_BYTES)
        at = max(at, stream.passed - base)
        while True:
            if stream.open is None:
                start = starts(data, at)
                if start is None:
                    return
                stream.open = start._replace(at=start.at + base)
            begin = stream.open.at - base
            end = end_of(stream.open, data, begin, stream.seen - base)
            if end < 0:
                if len(data) - begin > LONGEST_BYTES:
                    self._cut(stream, stream.end)
                return
            self._secret(stream, begin, end)
            stream.open = None
            at = max(end, begin)
            stream.passed = at + base

    def _cut(self, stream: Stream, position: int) -> None:
        """Overwrite the present part of a secret without an end, if it begins before *position*."""
        if stream.open is not None and stream.open.at < position:
            begin, end = stream.open.at - stream.base, len(stream.data)
            self._overwrite(stream, begin, end)
            left = stream.open.depth - (end - begin) if stream.open.kind == "plain" else stream.open.depth
            stream.open = stream.open._replace(at=stream.end, depth=max(0, left))
        if stream.port and 0 <= stream.row < position:
            # An incomplete row or statement: all of it but its header (4 bytes) and first byte (in
            # PostgreSQL's order: type and length).
            self._overwrite(stream, stream.row - stream.base + 5, len(stream.data))

    def _scan_known(self, stream: Stream) -> None:
        if self._probe is None:
            return
        data = stream.data
        at = max(0, stream.known_to - stream.base - TAIL_BYTES)
        for found in self._probe.finditer(data, at):
            for secret in self._known.get(found[0], ()):
                if data.startswith(secret, found.start()):
                    self._overwrite(stream, found.start(), found.start() + len(secret))
                    break
        stream.known_to = stream.end

    def _secret(self, stream: Stream, begin: int, end: int) -> None:
        secret = bytes(stream.data[begin:end])
        self._overwrite(stream, begin, end)
        # A text with blanks is no token or password that would be sent again elsewhere.
        if LEAST_KNOWN_BYTES <= len(secret) <= 64 << 10 and len(secret.split()) == 1:
            probe = secret[:PROBE_BYTES]
            if probe not in self._known:
                self._known[probe] = [secret]
                trim(self._known, MOST_KNOWN)
                self._probe = re.compile(b"|".join(re.escape(p) for p in self._known))
            elif secret not in self._known[probe] and len(self._known[probe]) < 16:
                self._known[probe].append(secret)

    def _overwrite(self, stream: Stream, begin: int, end: int) -> None:
        """Add patches for data[begin:end], except for framing bytes inside it."""
        if end <= begin:
            return
        whole = bytes(stream.data[begin:end])
        pieces, at = [], 0
        for framing in FRAMING.finditer(whole) if stream.port == 0 else ():
            pieces.append((at, framing.start()))
            at = framing.end()
        pieces.append((at, len(whole)))
        text = self._pseudonym(b"".join(whole[a:b] for a, b in pieces))
        used = 0
        for a, b in pieces:
            for start in range(a, b, PATCH_BYTES):
                size = min(PATCH_BYTES, b - start)
                insort(stream.patches, (stream.base + begin + start, text[used : used + size]))
                used += size
        if len(stream.patches) > stream.most_patches:
            self._forget_patches(stream)
        stream.overwritten += 1
        self.overwritten += 1

    def _forget_patches(self, stream: Stream) -> None:
        """Drop the oldest patches; those of packets that still wait are kept."""
        for each in self._held:
            each.place()
        waiting = (held.begin for held in self._held if held.stream is stream and held.begin >= 0)
        oldest = min(waiting, default=stream.base) - PATCH_BYTES
        superfluous = min(bisect_left(stream.patches, (oldest, b"")), len(stream.patches) - MOST_PATCHES)
        del stream.patches[: max(0, superfluous)]
        stream.most_patches = len(stream.patches) + MOST_PATCHES

    def _pseudonym(self, secret: bytes) -> bytes:
        """Return the pseudonym of *secret* in this run, of the same length: letters, digits, '-' and '_'."""
        seed = hashlib.blake2b(secret, key=self._key, digest_size=32).digest()
        return hashlib.shake_128(seed).digest(len(secret)).translate(_ALPHABET)


def _patched(held: Held, stream: Stream) -> PacketFields:
    packet = held.packet
    size = held.end - held.begin
    first = bisect_left(stream.patches, (held.begin - PATCH_BYTES, b""))
    last = bisect_left(stream.patches, (held.end, b""))
    if first == last:
        return packet
    patches = [(at - held.begin, text) for at, text in stream.patches[first:last]]
    data = bytearray(packet[1])
    for at, text in patches:
        begin, end = max(0, at), min(size, at + len(text))
        if begin < end:
            data[held.at + begin : held.at + end] = text[begin - at : end - at]
    return (packet[0], bytes(data), *packet[2:])


def _ahead(a: int, b: int) -> int:
    """Return how far sequence number *a* is ahead of *b*; negative when it is before (RFC 9293 §3.4)."""
    distance = (a - b) & _MASK
    return distance - (_MASK + 1) if distance >= 1 << 31 else distance
