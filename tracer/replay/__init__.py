"""Recorded traffic sent again: AMQP onto a test broker, REST requests to test endpoints.

The captures are read twice. First to plan: who is who, and what must exist before the first message. Then to
send, message by message, as each becomes due; nothing of them is kept but ids and tokens, in memory.

recorded  captures in, messages with the bytes they came as
broker    what of exchanges, queues, bindings and consumers a recording shows, and what follows from it
plan      the first reading
amqp      onto a broker
sessions  the recorded connections as they live there
ownership which exchanges and queues on a broker are a replay's own
ids       which live id stands for which recorded one
rest      to HTTP endpoints
run       the second reading, at its pace
summary   what came of it, as text and as JSON
"""
