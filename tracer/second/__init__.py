"""A second opinion: tshark in place of our own capture readers, reassembly and decoders.

tshark       the program: found, asked through pyshark, and what it shows of a frame
connections  the connections of a capture, and how they end
http, amqp, sql  the messages of one protocol, made from what tshark shows
source       a capture file -> the messages in it
comparison   the calls of two runs over the same captures, difference by difference
"""

from tracer.second.comparison import compared
from tracer.second.source import heard, require

__all__ = ["compared", "heard", "require"]
