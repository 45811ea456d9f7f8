"""Real TLS: OpenSSL talking to itself over memory, and what it wrote to the wire and to the key log."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tracer.model import BOTH, TO_CLIENT, TO_SERVER, Closed, Connection, Data, Endpoint, Gap, Message
from tracer.protocols import PORTS, Decoders, Options
from tracer.protocols.tls import KeyLog
from tracer.testing.packets import Network

__all__ = ["NAME", "Talk", "connection", "decoded", "key_log", "packets", "talk"]

NAME = "keystone.cloud.example"


@cache
def certificate() -> bytes:
    """A key and its certificate, in PEM, made for this run."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a common name")])
    address = x509.IPAddress(ipaddress.ip_address("172.28.0.41"))
    names = [x509.DNSName(NAME), x509.DNSName("identity"), address]
    day = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(day)
        .not_valid_after(day + datetime.timedelta(days=36500))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + made.public_bytes(serialization.Encoding.PEM)


@dataclass
class Talk:
    """One TLS conversation: what was on the wire, in order, and its keys."""

    flights: list[tuple[int, bytes]] = field(default_factory=list)
    """(direction, bytes)"""
    keys: str = ""
    """The key log."""
    session: ssl.SSLSession | None = None
    cipher: str = ""
    resumed: bool = False

    def segments(self) -> Iterator[tuple[int, bytes]]:
        """The flights in pieces as large as Ethernet takes."""
        for direction, flight in self.flights:
            for at in range(0, len(flight), 1448):
                yield direction, flight[at : at + 1448]


class _End:
    def __init__(self, context: ssl.SSLContext, **options: object) -> None:
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, **options)  # type: ignore[arg-type]


@cache
def _contexts(version: str, ciphers: str, alpn: tuple[str, ...]) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    client, server = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
    with TemporaryDirectory() as folder:
        path = Path(folder, "certificate.pem")
        path.write_bytes(certificate())
        server.load_cert_chain(path)
    for context in (client, server):
        context.minimum_version = context.maximum_version = {
            "1.2": ssl.TLSVersion.TLSv1_2,
            "1.3": ssl.TLSVersion.TLSv1_3,
        }[version]
        if ciphers:
            context.set_ciphers(ciphers)
        if alpn:
            context.set_alpn_protocols(list(alpn))
    return client, server


def talk(
    said: Sequence[tuple[int, bytes]],
    *,
    version: str = "1.3",
    ciphers: str = "",
    alpn: tuple[str, ...] = (),
    session: ssl.SSLSession | None = None,
) -> Talk:
    """The ends greet, say each (direction, bytes), one record or more each, and close."""
    found = Talk()
    contexts = _contexts(version, ciphers, alpn)
    with TemporaryDirectory() as folder:
        log = Path(folder, "keys.log")
        contexts[0].keylog_filename = str(log)
        ends = (
            _End(contexts[0], server_hostname=NAME, session=session),
            _End(contexts[1], server_side=True),
        )

        def send(direction: int) -> None:
            data = ends[direction].outgoing.read()
            if data:
                found.flights.append((direction, data))
                ends[1 - direction].incoming.write(data)

        waiting = [TO_SERVER, TO_CLIENT]
        while waiting:
            for direction in tuple(waiting):
                try:
                    ends[direction].tls.do_handshake()
                    waiting.remove(direction)
                except ssl.SSLWantReadError:
                    pass
                send(direction)
        for direction, payload in said:
            for at in range(0, len(payload), 16_384):
                ends[direction].tls.write(payload[at : at + 16_384])
            send(direction)
            _drain(ends[1 - direction].tls)
        found.session, found.resumed = ends[0].tls.session, bool(ends[0].tls.session_reused)
        found.cipher = (ends[0].tls.cipher() or ("",))[0]
        found.keys = log.read_text()
    return found


def _drain(tls: ssl.SSLObject) -> None:
    try:
        while tls.read(65_536):
            pass
    except ssl.SSLWantReadError:
        pass


def packets(*talks: Talk) -> list[tuple[int, bytes]]:
    """The packets of these conversations, one connection after the other."""
    network = Network()
    for number, each in enumerate(talks):
        at = 1.0 + number
        connection = network.connection("10.0.0.1", "10.0.0.2", 5000, at)
        for direction, payload in each.segments():
            at += 0.001
            (connection.say if direction == TO_SERVER else connection.hear)(at, payload)
        connection.close(at + 0.001)
    return network.packets()["all"]


# --- decoding -------------------------------------------------------------------------------------


def connection(port: int = 5000, number: int = 1, *, joined: bool = False) -> Connection:
    """A connection to *port*."""
    ends = Endpoint("10.0.0.1", 40_000), Endpoint("10.0.0.2", port)
    return Connection(number, *ends, 0, joined=joined, captures=[0])


def key_log(*texts: str) -> KeyLog:
    """The secrets of these key logs."""
    found = KeyLog()
    for text in texts:
        found.add(text.encode())
    return found


def decoded(
    segments: Sequence[tuple[int, bytes | None]],
    keys: KeyLog | None = None,
    of: Connection | None = None,
) -> list[Message]:
    """The messages of a connection; segment n is frame n, from 1. None stands for a hole."""
    of = of or connection()
    of.seen = BOTH
    given = Decoders(PORTS, Options(keys=keys))
    told: list[Message] = []
    for number, (direction, payload) in enumerate(segments, 1):
        if payload is None:
            told += given.receive(Gap(of, direction, number, 0))
        else:
            told += given.receive(Data(of, direction, number, payload, ((0, number),)))
    told += given.receive(Closed(of, len(segments) + 1, "end"))
    return told
