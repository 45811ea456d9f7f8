"""Live verdicts: the stages of `tracer.engine`, fed by live sources, with events as output.

run         opens a run for the arguments of a command line
watch       the loop: segments in, a look at the open traces, events out
feed        several sources merged into one stream of segments in time order
sources     per source: packets processed, packets lost, state
follow      open traces: steps seen, who owes the next step, when a trace is done and forgotten
hold_up     why a creation does not go on: unanswered requests, undelivered messages, absent consumers
checkpoint  the open traces saved in a file, for the next run
restart     what the next run takes over from that file
notify      HTTP notifications of creations that are stuck or failed

Like `tracer.engine`, this package joins others; its events are defined in `tracer.model.events`. It
decides what is shown of a creation that is not complete: correlation asks it (`follow.WaitingOrders`).
"""
