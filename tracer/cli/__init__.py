"""The command line: flags, streams and exit codes. What is decided about traces is decided elsewhere.

commands      the program, and the script that completes its commands
reading       what check, calls, show and baseline do
live          what watch does; recording, replaying, extracting, comparing, grammars: as they are called
manner        how to talk: the options that every command takes
options       the flags of what is read and what is shown, and what their values mean
live_options  the flags of what is followed, recorded or played again
usage         what is said of a command line that makes no sense
output        where results and remarks go, colours, exit codes
progress      bars while captures are read

Here is the way in and out: every run ends in one place, with one code and at most one line of error.
The pipeline, the reports and rich are imported where they are first needed, and nothing else imports
them: `tracer --help`, shell completion and every mistyped command answer at once.
"""

from __future__ import annotations

import gc
import io
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from tracer.cli import output
from tracer.cli.commands import program
from tracer.cli.manner import COMPLETE_VARIABLE, PROGRAM_NAME, Manner
from tracer.cli.output import CONFORMS, COULD_NOT_RUN, INTERRUPTED
from tracer.errors import TracerError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script `tracer`. Exits; with the arguments of the process, if none are given."""
    # A process of one run: as rarely as the pipeline wants it while reading, from the first import on.
    gc.set_threshold(100_000, 20, 100)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show an arrow gets a question mark, not a traceback.
            stream.reconfigure(errors="replace")
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(program, {}, PROGRAM_NAME, COMPLETE_VARIABLE, instruction))
    sys.exit(_run(sys.argv[1:] if arguments is None else arguments))


def _run(arguments: Sequence[str]) -> int:
    """Run the command that is asked for and return its exit code; every mistake of the caller is one line."""
    # Not click's own `main`: it ends with 1 for a reader that leaves, which means that a trace deviates.
    manner = Manner()
    try:
        with program.make_context(PROGRAM_NAME, list(arguments), obj=manner) as context:
            return int(program.invoke(context))
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        from tracer.cli import usage

        return _fail(usage.words(error))
    except TracerError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        output.say("interrupted", manner)
        return INTERRUPTED
    except BrokenPipeError:
        # `tracer --help | head -1`. The commands have their own, and still say what they found.
        output.discard_stdout()
        return CONFORMS
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except Exception as error:
        if manner.debug:
            import traceback

            traceback.print_exc()
        return _bug(error)


def _fail(message: str) -> int:
    output.tell(f"error: {message}")
    return COULD_NOT_RUN


def _bug(error: Exception) -> int:
    what = output.plain(f"{type(error).__name__}: {error}", 500)
    output.tell(f"internal error: {what} (this is a bug; run with --debug for the trace)")
    return COULD_NOT_RUN
