"""`townhall chat --prompt`: a text carried on; stdout gets the continuation and nothing else."""

import sys

from townhall.cli import reply_report, terminal
from townhall.cli.chat_options import ChatOptions
from townhall.cli.model_loading import Loaded, load
from townhall.cli.render import open_view
from townhall.logbook.logged_chat import COMPLETION, LoggedChat, default_folder
from townhall.logbook.recording_model import RecordedModel
from townhall.persona import Persona
from townhall.text_completion import TextCompletion

HEADINGS = Persona("Continuation", "", user="Prompt")  # how the two parts of the text are headed in a log


def run_completion(options: ChatOptions) -> int:
    """Complete the prompt and return the exit code."""
    prompt = options.prompt or ""
    loaded = load(options)
    recorded = RecordedModel(loaded.llama) if options.log else None
    completion = TextCompletion(recorded or loaded.llama, prompt, loaded.sampling, options.count, options.context)
    keeper = _keep(options, loaded, recorded, completion) if recorded else None
    if keeper:
        keeper.asked(prompt)
    view = None if options.json else open_view()
    with terminal.ctrl_c_stops() as interrupted:
        pieces = iter(completion)
        for piece in pieces:
            if view:
                view.push(piece)
            if interrupted:
                break
        pieces.close()
    reply = completion.last
    assert reply is not None
    if keeper:
        keeper.answered(reply)
        keeper.close()
    interrupted.leave()
    if view:
        view.close()
    else:
        terminal.say(terminal.harmless(reply_report.as_json(reply, loaded), sys.stdout) + "\n")
    if reply.finish_reason == "stop" and not reply.text.strip():
        terminal.note("the model ended the text at once: --prompt carries on a text as it stands; to ask a question, leave it out")
    if line := reply.receipt.describe():
        terminal.note(line)
    reply_report.account(reply, loaded)
    if options.timing:
        terminal.note(reply_report.as_timing(reply, loaded))
    if options.profile:
        terminal.note(loaded.watch.report())
    return 130 if interrupted else 0


def _keep(options: ChatOptions, loaded: Loaded, recorded: RecordedModel, completion: TextCompletion) -> LoggedChat:
    place, identity = options.log_to or default_folder(), completion.cache.identity
    return LoggedChat.begin(place, recorded, HEADINGS, identity, loaded.settings(options), terminal.complain, kind=COMPLETION)
