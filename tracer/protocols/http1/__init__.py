"""HTTP/1.x. `Http1` is its decoder.

decoder    bytes of one connection -> requests and responses
head       where a message begins, what its head says, and what of it is secret
body       how long a body is, and what of it is kept
stream     the state of one direction
exchanges  which response answers which request, also behind gaps
"""

from tracer.protocols.http1.decoder import Http1

__all__ = ["Http1"]
