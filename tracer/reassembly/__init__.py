"""Segments in, the bytes of each direction in order out: TCP reassembly for a passive observer.

Strategy. In-order data goes straight through. Data ahead of a hole waits; the hole is declared lost
only after 48 later packets of its connection or one second of capture time (a mirror port reorders,
and shows an ACK before the data it acknowledges: zeek #335, PcapPlusPlus #851), at a reset, or when the
capture ends. Nothing is invented: a hole becomes a `Gap` with its size. Both directions may be there,
or only one; a connection may have begun before the capture.
"""

from tracer.reassembly.reassembler import Event, Reassembler

__all__ = ["Event", "Reassembler"]
