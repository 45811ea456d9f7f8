"""Sends recorded traffic again: AMQP to a test broker, REST requests to test endpoints.

The captures are read twice. The first reading plans: roles, and what must exist before the first message. The
second sends each message when it is due. Only ids and tokens are kept of the messages, in memory.

recorded  reads captures into messages with their raw bytes
broker    exchanges, queues, bindings and consumers that a recording shows or implies
plan      the first reading
amqp      sends AMQP to a broker
sessions  live connections, channels and consumers in the place of the recorded ones
ownership exchanges and queues on a broker that a replay has declared
ids       live ids and tokens for recorded ones
rest      sends requests to HTTP endpoints
run       the second reading, at its pace
summary   the result as text and as JSON
"""
