"""Verdicts while it happens: the stages of `tracer.engine`, fed by live sources, told event by event.

feed     several sources, one stream of segments in time order
queues   what the broker holds: undelivered messages, queues without a consumer
follow   open traces: which steps came, who owes the next, when a trace is done and forgotten
history  the verdicts of those that are done, in bounded room
watch    the loop over all of them
notify   who is told of what is stuck or failed, by HTTP
checkpoint  the open traces in a file, for a run to come

Like `tracer.engine` this room joins boxes; what it tells are the nouns of `tracer.model.events`.
"""
