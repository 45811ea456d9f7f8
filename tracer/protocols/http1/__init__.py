"""Decoder of HTTP/1.x: `Http1`.

decoder    bytes of one connection -> requests and responses
head       start lines and header lines: finding them, parsing them, replacing their secrets
body       the length of a body, and the part of it that is kept
stream     the state of one direction
exchanges  pairing of requests and responses, also around gaps
"""

from tracer.protocols.http1.decoder import Http1

__all__ = ["Http1"]
