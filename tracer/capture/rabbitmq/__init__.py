"""RabbitMQ's firehose as a source: `broker_of(url)` names the broker, `RabbitMQ` listens to it.

source      the live source: setup, reconnecting, what is handed over
broker      the URL behind --amqp, and why a broker cannot be listened to
connection  pika's connection, and our queues on it
frames      deliveries out of the broker's bytes
messages    deliveries -> the messages that a sniffed connection would give
visibility  when messages pass unseen; probes
"""

from tracer.capture.rabbitmq.broker import Broker, broker_of
from tracer.capture.rabbitmq.source import RabbitMQ

__all__ = ["Broker", "RabbitMQ", "broker_of"]
