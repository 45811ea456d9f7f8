"""TLS: what the two ends of a connection say before they encrypt.

records       bytes of one direction -> records; what is missing of them
handshake     hellos and certificates
greeting      what is said openly of one connection
decoder       the decoder that `protocols` chooses
"""

from importlib.util import find_spec

from tracer.protocols.tls.decoder import Tls
from tracer.protocols.tls.keylog import KeyLog

__all__ = ["KeyLog", "Tls", "missing_library"]


def missing_library() -> str:
    """Return the library that opening needs and that is not installed; empty if it is there."""
    return "" if find_spec("cryptography") else "cryptography"
