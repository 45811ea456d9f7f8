"""Decoder of AMQP 0-9-1, as RabbitMQ speaks it: `Amqp091`.

decoder  bytes of one connection -> methods and contents
methods  the table of methods, and how their arguments are read
stream   the state of one direction, and the form of a frame
"""

from tracer.protocols.amqp091.decoder import Amqp091

__all__ = ["Amqp091"]
