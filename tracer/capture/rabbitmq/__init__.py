"""RabbitMQ's firehose as a source: `broker_of(url)` parses the URL, `RabbitMQ` is the live source.

source      the live source: setup, reconnecting, handing over
broker      the URL of --amqp, and error messages about a broker
connection  pika's connection, and our queues on it
frames      reading of deliveries from the broker's bytes
messages    deliveries -> the messages that a sniffed connection would give
visibility  times in which messages passed unseen; probes
"""

from tracer.capture.rabbitmq.broker import Broker, broker_of
from tracer.capture.rabbitmq.source import RabbitMQ

__all__ = ["Broker", "RabbitMQ", "broker_of"]
