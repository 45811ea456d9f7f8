"""TCP reassembly for a passive observer: segments in, the bytes of each direction in order out.

Strategy. In-order data is handed on at once. Data behind a hole waits. A hole is declared lost after 48
later packets of its connection, after one second of capture time, at a reset, or when the capture ends.
An ACK does not end the wait: a mirror port reorders packets and can show an ACK before the data that it
acknowledges (zeek #335, PcapPlusPlus #851). No bytes are invented: a lost hole becomes a `Gap` with its
size. The capture may hold both directions or only one, and may begin in the middle of a connection.
"""

from tracer.reassembly.halves import Event
from tracer.reassembly.reassembler import Reassembler

__all__ = ["Event", "Reassembler"]
