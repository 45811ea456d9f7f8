"""Sources of traffic. `resolve` turns CAPTURE arguments into files, `open_capture` a file into packets.

Sources
  files/      capture files: pcap, pcapng, compressed or not
  streams     captures that are still being written, and replayed ones
  interface   a network interface
  rabbitmq/   a broker's firehose
What they share
  arguments   parsing of CAPTURE and `-i` arguments
  live        the clock, and a thread for each live source
  layers      packet -> TCP segment
  points      several capture points -> one stream of segments
  privileges  dropping the privileges that sniffing needed
"""

from tracer.capture.arguments import CaptureArgument, Resolved, plane_of_name, resolve
from tracer.capture.files import Reader, open_capture, open_reader

__all__ = [
    "CaptureArgument",
    "Reader",
    "Resolved",
    "open_capture",
    "open_reader",
    "plane_of_name",
    "resolve",
]
