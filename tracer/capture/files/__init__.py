"""Capture files: pcap and pcapng, plain, gzip or zstd. `open_capture` turns a path into packets.

opening      what kind of capture a path is, or what else it is
pcap         records of a classic pcap file
pcapng       blocks of a pcapng file
compression  the bytes of a file or pipe, unpacked
"""

from tracer.capture.files.opening import open_capture

__all__ = ["open_capture"]
