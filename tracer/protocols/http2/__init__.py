"""Decoder of HTTP/2: `Http2`.

decoder  bytes of one connection -> the messages of its streams
frames   frame heads, and the search of one in the middle of a connection
fields   header blocks (HPACK), also where entries of the table are not known
streams  the state of one direction, and of one exchange
"""

from tracer.protocols.http2.decoder import Http2

__all__ = ["Http2"]
