"""Groups calls into traces, one trace per VM.

Most calls are joined by identifiers. The request id in the answer to POST /servers is in every later call
of that creation; the instance's uuid selects the VM when one request creates several. Calls without an id
(token validations, quota reads, refused connections, the VRM's tasks) are joined by token, by time and
address, or by a URI from an earlier answer. A call that may belong to several traces is given to all of
them and marked ambiguous.
"""

from tracer.correlation.correlator import Correlator
from tracer.correlation.requests import Pending

__all__ = ["Correlator", "Pending"]
