"""What tests are made with: brokers, wires, captures, damage, and tracer as a process.

captures       where real captures are, those of captures/ and others that variables name
brokers        a real RabbitMQ, one for all tests of a worker
brokered       the clients of a recorded cloud on a broker
wires          network namespaces with virtual interfaces, and recorded packets on them
streams        captures through named pipes; `tracer NAME` as a process
running        what a process says, line by line, to wait for
alive, turns   a recorded scenario as if it happened now; again and again, with other ids
stepped        a live run that is looked at each second of capture time
hearing        a web server that takes notifications
recorded_runs  a pytest of its own that records
relay, twin    a TCP relay that records; servers that answer as the recorded ones did
recorded       what a capture holds, read by the decoders alone
judging, reading, plain    stages by themselves; plain Lark as a reader of grammars
damage, chance, traffic    captures damaged on purpose; random traces; random conversations
harms, truths  the rows of the damage table; what is said, held against the truth of each creation
unpruned, petri, ours, shark    second opinions: an exhaustive search, PM4Py, the decoders alone, tshark
browser        chromium, to open reports in HTML
long           the marker of what the default run leaves out, and sizes that depend on it
"""
