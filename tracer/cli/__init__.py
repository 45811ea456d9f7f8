"""The command line: options, streams and exit codes. It contains no decision about traces.

program   the assembled program; one run of it, with its exit code and at most one line of error
offline   tracer check, calls, show, baseline, extract, compare: they read captures to their end
watch     tracer watch, and the live view of a replay
capture   tracer capture
replay    tracer replay
grammar   tracer grammar
doctor    tracer doctor
explain   tracer explain
options   options of the commands, and the parsing of their values
formats   the formats of a report
output    results, remarks, progress, colours, exit codes
common    what all commands share; it imports none of the others

Modules import only modules that are later in this list. The pipeline, the reports and rich are imported where
they are first needed, so that `tracer --help`, shell completion and errors in arguments are fast.
"""

from __future__ import annotations

import gc
import io
import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the console script `tracer` and exit; *arguments* default to those of the process."""
    # The process makes one run, so the thresholds of the pipeline hold from the first import on.
    gc.set_threshold(100_000, 20, 100)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show an arrow gets a question mark, not a traceback.
            stream.reconfigure(errors="replace")
    # Imported here: the modules of the package import the package first, which would be a cycle.
    from tracer.cli.program import complete, run

    complete()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
