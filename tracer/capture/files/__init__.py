"""Capture files: pcap and pcapng, plain, gzip or zstd. `open_capture` turns a path into packets.

opening      detection of the format, and errors for files that are not captures
pcap         records of a classic pcap file
pcapng       blocks of a pcapng file
compression  the decompressed bytes of a file or pipe
"""

from tracer.capture.files.opening import Reader, open_capture, open_reader

__all__ = ["Reader", "open_capture", "open_reader"]
