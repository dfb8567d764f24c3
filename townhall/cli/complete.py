"""`townhall chat --prompt`: a text carried on; stdout gets the continuation and nothing else."""

from townhall.cli import report, terminal
from townhall.cli.loading import load
from townhall.cli.options import ChatOptions
from townhall.completion import Completion


def run_completion(options: ChatOptions) -> int:
    """Complete the prompt and return the exit code."""
    loaded = load(options)
    completion = Completion(loaded.llama, options.prompt or "", loaded.sampling, options.count, options.context)
    with terminal.ctrl_c_stops() as interrupted:
        pieces = iter(completion)
        for piece in pieces:
            if not options.json:
                terminal.say(piece)
            if interrupted:
                break
        pieces.close()
    reply = completion.last
    assert reply is not None
    terminal.say(report.as_json(reply, loaded) + "\n" if options.json else "\n")
    if line := reply.receipt.describe():
        terminal.note(line)
    report.account(reply, loaded)
    if options.timing:
        terminal.note(report.as_timing(reply, loaded))
    if options.profile:
        terminal.note(loaded.watch.report())
    return 130 if interrupted else 0
