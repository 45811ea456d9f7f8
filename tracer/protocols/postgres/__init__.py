"""Decoder of the frontend/backend protocol of PostgreSQL, openGauss and GaussDB: `Postgres`.

decoder     the client's side: bytes of one connection -> logins and statements
statements  what the client prepared and bound: statements, portals, parameters
answers     the server's side: pairing of answers with statements, and whether they succeeded
framing     splitting of the stream into messages, and finding their boundaries
fields      parsing of the bodies of messages
"""

from tracer.protocols.postgres.decoder import Postgres

__all__ = ["Postgres"]
