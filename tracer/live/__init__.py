"""Verdicts while it happens: the stages of `tracer.engine`, fed by live sources, with events as output.

run         from the words of a command line to a run
watch       the loop: segments in, a look at the open traces, events out
feed        several sources, one stream of segments in time order
sources     what was processed of each source, what it lost, how it is doing
follow      open traces: which steps came, who owes the next, when one is done and forgotten
hold_up     what holds a creation up: unanswered requests, undelivered messages, queues without a consumer
checkpoint  the open traces in a file, for a run to come
restart     what such a run takes over
notify      who hears of what is stuck or failed, by HTTP

Like `tracer.engine` this package joins others; its events are nouns of `tracer.model.events`. It
decides what is shown of a creation while more may come: correlation asks it (`follow.WaitingOrders`).
"""
