"""The program: its commands in the order of their use, and the script that completes them."""

from __future__ import annotations

import click

from tracer.cli import comparing, extracting, grammars, live, reading, recording, replaying
from tracer.cli.manner import COMPLETE_VARIABLE, PROGRAM_NAME, SHELLS, mannered, version
from tracer.cli.output import CONFORMS, COULD_NOT_RUN
from tracer.errors import UsageError

__all__ = ["program"]


class Commands(click.Group):
    """The commands in the order of their use, with a suggestion for one that does not exist."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self.commands and not ctx.resilient_parsing:
            from tracer.cli import usage

            raise UsageError(usage.no_such_command(args[0], args[1:], self.list_commands(ctx)))
        return super().resolve_command(ctx, args)


@click.group(
    PROGRAM_NAME,
    cls=Commands,
    invoke_without_command=True,
    subcommand_metavar="COMMAND [ARGS]...",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@mannered
@version
@click.pass_context
def program(context: click.Context) -> int:
    """Says at which documented step the creation of a cloud VM broke, from
    network captures alone.

    \b
    Examples:
      tracer check incident/                  which creations broke, and where
      tracer show incident/ --trace web-1     one of them as a ladder diagram
      tracer calls boot.pcap --format jsonl   every call that the captures hold

    Exit codes of check: 0 all traces conform, 1 one deviates, 2 could not run,
    3 none deviates but one is inconclusive, 5 no trace found, 130 interrupted.
    The other commands: 0 or 2.

    Results go to standard output, all else to standard error. `tracer
    completion --help` tells how to have commands and options completed.
    """
    if context.invoked_subcommand is None:
        # Not 0: a script whose command came out empty has checked nothing.
        click.echo(context.get_help(), err=True)
    return COULD_NOT_RUN


for command in (
    reading.check,
    reading.calls,
    reading.show,
    live.watch,
    recording.capture,
    replaying.replay,
    reading.baseline,
    extracting.extract,
    comparing.compare,
    grammars.grammar,
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

    To try it in the shell at hand, of bash or zsh: eval "$(tracer completion
    bash)".
    """
    from click.shell_completion import get_completion_class

    shell_class = get_completion_class(shell)
    if shell_class is None:
        raise UsageError(f"the installed click completes nothing in {shell}; update it")
    click.echo(shell_class(program, {}, PROGRAM_NAME, COMPLETE_VARIABLE).source())
    return CONFORMS
