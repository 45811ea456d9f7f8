"""The program: its commands, shell completion, and one run with its exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from tracer.cli import output
from tracer.cli.capture import capture
from tracer.cli.common import (
    COMPLETE_VARIABLE,
    PROGRAM_NAME,
    SHELLS,
    CommonOptions,
    common_options,
    version,
)
from tracer.cli.doctor import doctor
from tracer.cli.explain import explain
from tracer.cli.grammar import grammar
from tracer.cli.offline import baseline, calls, check, compare, extract, show
from tracer.cli.output import CONFORMS, COULD_NOT_RUN, INTERRUPTED
from tracer.cli.replay import replay
from tracer.cli.watch import watch
from tracer.errors import TracerError, UsageError, close_matches

__all__ = ["complete", "program", "run"]


class Commands(click.Group):
    """The commands in the order in which they were added, with a suggestion for an unknown one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order in which they were added; click would sort them."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that *args* begin with. Raises UsageError for an unknown one."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            raise UsageError(_no_such_command(args[0], args[1:], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


@click.group(
    PROGRAM_NAME,
    cls=Commands,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@common_options
@version
@click.pass_context
def program(context: click.Context) -> int:
    """Reports at which documented step the creation of a cloud VM failed, from
    network captures alone.

    \b
    Examples:
      tracer check incident/                  which creations failed, and where
      tracer show incident/ --trace web-1     one of them as a ladder diagram
      tracer calls boot.pcap --format jsonl   every call that the captures hold

    Exit codes of check: 0 all traces conform, 1 one deviates, 2 could not run,
    3 none deviates but one is inconclusive, 5 no trace found, 130 interrupted.
    The other commands: 0 or 2.

    Results go to standard output, all else to standard error. `tracer
    completion --help` shows how to have commands and options completed.
    """
    if context.invoked_subcommand is None:
        # Not 0: a script that calls tracer without a command has checked nothing.
        click.echo(context.get_help(), err=True)
    return COULD_NOT_RUN


for command in (
    check,
    calls,
    show,
    watch,
    capture,
    replay,
    baseline,
    extract,
    compare,
    grammar,
    doctor,
    explain,
):
    program.add_command(command)


@program.command(short_help="Print the script that completes commands and options.")
@click.argument("shell", metavar="|".join(SHELLS), type=click.Choice(SHELLS))
def completion(shell: str) -> int:
    """Prints the script with which a shell completes commands and options.

    \b
    Examples:
      tracer completion bash > ~/.local/share/bash-completion/completions/tracer
      tracer completion zsh > ~/.zfunc/_tracer     # a folder of fpath
      tracer completion fish > ~/.config/fish/completions/tracer.fish

    To try it in the current bash or zsh: eval "$(tracer completion bash)".
    """
    from click.shell_completion import get_completion_class

    shell_class = get_completion_class(shell)
    if shell_class is None:
        raise UsageError(f"the installed click completes nothing in {shell}; update it")
    click.echo(shell_class(program, {}, PROGRAM_NAME, COMPLETE_VARIABLE).source())
    return CONFORMS


# --- one run ---------------------------------------------------------------------------------------


def complete() -> None:
    """Answer a shell's completion script and exit, if such a script started the process."""
    if instruction := os.environ.get(COMPLETE_VARIABLE):
        from click.shell_completion import shell_complete

        sys.exit(shell_complete(program, {}, PROGRAM_NAME, COMPLETE_VARIABLE, instruction))


def run(arguments: Sequence[str]) -> int:
    """Run the command in *arguments*; return its exit code. A mistake of the user gives one line of error."""
    # Not click's `main`: it exits with 1 when the reader of a pipe ends, and 1 means that a trace deviates.
    common = CommonOptions()
    try:
        with program.make_context(PROGRAM_NAME, list(arguments), obj=common) as context:
            return int(program.invoke(context))
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        return _fail(_mistake(error))
    except TracerError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        output.say("interrupted", common)
        return INTERRUPTED
    except BrokenPipeError:
        # `tracer --help | head -1`. Commands handle this themselves and keep their exit code.
        output.discard_stdout()
        return CONFORMS
    except OSError as error:
        return _fail(f"{error.filename or 'input or output'}: {error.strerror or error}")
    except Exception as error:
        if common.debug:
            import traceback

            traceback.print_exc()
        return _bug(error)


def _fail(message: str) -> int:
    output.write_line(f"error: {message}")
    return COULD_NOT_RUN


def _bug(error: Exception) -> int:
    from tracer.engine.internal_errors import type_and_place

    what = type_and_place(error)
    output.write_line(f"internal error: {what} (this is a bug; run with --debug for the traceback)")
    return COULD_NOT_RUN


# --- mistakes of the user, one line each: what is wrong, and what to write instead -----------------

# click's own messages take three lines and differ between its versions.
_CAPTURES = "capture files, PLANE=FILE, a folder of them, - or example:NAME"


def _mistake(error: click.ClickException) -> str:
    """Return the message for a mistake that click has found."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    command = context.command_path if context else "tracer"
    see = f"`{command} --help`" if context else "--help"
    if isinstance(error, click.NoSuchOption):
        near = _near(error.option_name, _options(context))
        return f"{command} has no option {error.option_name}; {near or f'{see} lists those it has'}"
    if isinstance(error, click.MissingParameter):
        name = error.param.metavar if error.param else None
        if error.param is not None and error.param.name == "captures":
            return f"{command}: no captures given: name {_CAPTURES}"
        return f"{command} needs {name or 'an argument'}; {see} shows how"
    if isinstance(error, click.BadParameter) and error.param is not None:
        # An option is named by itself, an argument by its command.
        name = error.param.opts[0] if isinstance(error.param, click.Option) else command
        return f"{name}: {error.message.rstrip('.')}"
    message = error.format_message().rstrip(".")
    return f"{message[:1].lower()}{message[1:]}; {see} shows how"


def _no_such_command(name: str, rest: Sequence[str], known: Sequence[str]) -> str:
    """Return the message for an unknown command; if it is a capture, `check` is suggested."""
    if os.path.exists(name) or name.startswith("example:"):
        import shlex

        return f"no command {name!r}; to check captures, write `tracer check {shlex.join([name, *rest])}`"
    return f"no command {name!r}; " + (_near(name, known) or f"there are {', '.join(known)}")


def _near(word: str, known: Sequence[str]) -> str:

    near = close_matches(word, known, n=1)
    return f"did you mean {near[0]}?" if near else ""


def _options(context: click.Context | None) -> list[str]:
    if context is None:
        return []
    return [name for parameter in context.command.get_params(context) for name in parameter.opts]
