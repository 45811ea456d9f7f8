"""The command line: options, streams and exit codes. What is decided about traces is decided elsewhere.

program   the assembled program; one run of it, with its exit code and at most one line of error
offline   tracer check, calls, show, baseline, extract, compare: they read captures to their end
watch     tracer watch, and the live view of a replay
capture   tracer capture
replay    tracer replay
grammar   tracer grammar
options   options of the commands, and what their values mean
formats   the formats of a report
output    results, remarks, progress, colours, exit codes
common    what commands share; it imports none of the others

Imports run from the top of this list to its end. The pipeline, the reports and rich are imported where they
are first needed: `tracer --help`, shell completion and every mistyped command answer at once.
"""

from __future__ import annotations

import gc
import io
import sys
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the console script `tracer`, and exit. Without *arguments*, with those of the process."""
    # A process of one run: as rarely as the pipeline wants it while reading, from the first import on.
    gc.set_threshold(100_000, 20, 100)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show an arrow gets a question mark, not a traceback.
            stream.reconfigure(errors="replace")
    # Here, so that the package can be imported by its own modules: they import nothing that imports them.
    from tracer.cli.program import complete, run

    complete()
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
