"""The services of a small cloud: each is a process, `python -m services.NAME`.

They say to each other what OpenStack's say when a VM is created, in the same words, and do nothing else.

web        HTTP: a server, and a client's call
rpc        RabbitMQ, with the envelopes of oslo.messaging
database   MariaDB, or SQLite in a file
addresses  where everybody is

Whoever asks for a VM may ask for a step that goes wrong, too: its name travels with the request in a header
(X-Break) and in the context of messages, as a request id does, to the service that breaks it.
"""
