"""Decoder of the client/server protocol of MySQL and MariaDB: `MySql`.

decoder  the client's side: bytes of one connection -> logins and statements
answers  the server's side: pairing of answers with statements, and whether they succeeded
packets  splitting of the stream into packets, and parsing of their payloads
"""

from tracer.protocols.mysql.decoder import MySql

__all__ = ["MySql"]
