"""The client/server protocol of MySQL and MariaDB. `MySql` is its decoder.

decoder  the client's side: bytes of one connection -> logins and statements
answers  the server's side: which statement an answer belongs to, and whether it worked
packets  packets cut from the stream, and what is read of their insides
"""

from tracer.protocols.mysql.decoder import MySql

__all__ = ["MySql"]
