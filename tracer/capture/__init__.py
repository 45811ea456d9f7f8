"""Where traffic comes from: capture files, pipes, live interfaces, brokers.

`resolve` turns CAPTURE arguments into files, `open_capture` turns a file into packets.
"""

from tracer.capture.arguments import CaptureArgument, Resolved, plane_of_name, resolve
from tracer.capture.opening import open_capture

__all__ = ["CaptureArgument", "Resolved", "open_capture", "plane_of_name", "resolve"]
