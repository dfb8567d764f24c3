"""`townhall completion`: lines for a shell's start-up file, after which Tab knows commands, flags, personas, settings and logs."""

import click

SHELLS = ("bash", "zsh", "fish")
EPILOG = """\b
Examples:
  townhall completion bash >> ~/.bashrc
  townhall completion zsh >> ~/.zshrc
  townhall completion fish > ~/.config/fish/completions/townhall.fish
"""


@click.command(help="Print what a shell needs to complete townhall's commands and flags.", epilog=EPILOG)
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    from click.shell_completion import get_completion_class

    from townhall.cli.main import cli

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(cli, {}, "townhall", "_TOWNHALL_COMPLETE").source())
