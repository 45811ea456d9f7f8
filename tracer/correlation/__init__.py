"""Calls in, one trace per VM out.

Identifiers do nearly all the work: the request id of the answer to POST /servers is in every later call
of that creation; the instance's uuid picks the VM of a request for several. What carries no id (token
validation, quota reads, refused connections, the VRM's tasks) is joined by token, by time and address,
or by the URI that an answer named. What may belong to several is given to all and marked ambiguous.
"""

from tracer.correlation.correlator import Correlator
from tracer.correlation.requests import Pending

__all__ = ["Correlator", "Pending"]
