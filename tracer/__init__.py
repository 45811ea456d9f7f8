"""Checks the creation of cloud VMs against its documented steps, from network captures alone.

    sources -Packet-> layers -Segment-> points -> reassembly -Data|Gap|Closed-> protocols -Message->
    calls -Call-> topology, coverage, correlation -Trace-> conformance -Verdict-> reports

Every arrow is a noun of `tracer.model`; every box imports `model` and `errors` and no other box;
`tracer.engine` alone joins them. Start with `tracer.engine.check`.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
