"""The session: lines in, answers out, at a terminal or in a pipe."""

import sys
from collections.abc import Generator
from io import TextIOWrapper

from ext.tinygrad.errors import TownhallError
from townhall.cli import report, terminal
from townhall.cli.held import Held
from townhall.cli.line import held, open_line, warm_up
from townhall.cli.loading import Loaded, load
from townhall.cli.options import ChatOptions
from townhall.cli.render import View, open_view
from townhall.conversation import Conversation
from townhall.head_cache import HeadCache
from townhall.logbook.keeper import Keeper, default_folder
from townhall.logbook.recorder import RecordedModel
from townhall.persona import Persona, load_persona

HELP = """/context       how full the window is
/context full  all that was said, and what of it the model no longer sees
/reset         begin anew
/exit          leave, as Ctrl-D does; Ctrl-C stops an answer"""
COMMANDS = ("/context", "/reset", "/exit")  # in a pipe as well, where any other line is said, whatever it begins with
PATIENCE = 1.0  # seconds in which a second Ctrl-C is the same one, typed by quick fingers


def run_session(options: ChatOptions) -> int:
    """Talk until the input ends; the exit code is 2 where a piped line had to be refused."""
    persona = load_persona(options.personality)
    with terminal.ends_in_order(), held() as typed:
        warm_up()
        loaded = load(options)
        session = Session(options, persona, loaded, typed)
        session.prepare()
        code = session.interact() if sys.stdin.isatty() else session.answer_lines()
        if options.profile:
            terminal.note(loaded.watch.report())
        return code


class Session:
    """One conversation, shown."""

    def __init__(self, options: ChatOptions, persona: Persona, loaded: Loaded, typed: Held | None = None):
        self.options, self.persona, self.loaded, self._typed = options, persona, loaded, typed
        recorded = RecordedModel(loaded.llama) if options.log else None
        self.conversation = Conversation(
            recorded or loaded.llama,
            persona,
            format=options.format,
            context=options.context,
            sampling=loaded.sampling,
            max_tokens=options.count,
            heads=None if options.fake or not options.cache else HeadCache.of_user(terminal.note),
        )
        self.keeper = self._keep(recorded) if recorded else None

    def _keep(self, model: RecordedModel) -> Keeper:
        place, identity = self.options.log_to or default_folder(), self.conversation.cache.identity
        return Keeper.begin(place, model, self.persona, identity, self.options.that_matter(), terminal.complain)

    def prepare(self) -> None:
        """Let the model read the persona, and say how long that took."""
        name = self.persona.name
        with self.loaded.watch.lap("read the persona"):
            stats = self.conversation.prepare(lambda done, total: terminal.progress(f"{name} is getting ready: {done} of {total} tokens"))
        if stats.restore_seconds is None:
            terminal.note(f"{name} is ready: {stats.prompt_tokens} tokens in {stats.seconds:.1f} s")
        else:
            restored = f"{stats.prompt_tokens} tokens restored in {stats.restore_seconds:.2f} s"
            terminal.note(f"{name} is ready in {stats.seconds:.1f} s: {restored}")

    def answer_lines(self) -> int:
        """Answer every line of a pipe, commands included; a line that is refused does not end the others."""
        code = 0
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8", errors="replace")
        for line in sys.stdin:
            text = line.strip()
            if text and text.split()[0] in COMMANDS:
                if not self.command(text):
                    break
            elif text:
                code = max(code, self.answer(text))
        return code

    def interact(self) -> int:
        """Talk to a person; Ctrl-C stops what is under way, never the session."""
        with terminal.ctrl_c_does_nothing():
            with self.loaded.watch.lap("set up the line"):
                commands = {name: text.strip() for name, text in (row.split(maxsplit=1) for row in HELP.splitlines()[::-1])}
                self.line = open_line(lambda: self.persona.user, commands, keep=self.options.log, typed=self._typed)
            if self.persona.greeting:
                self._greet(self.persona.greeting)
            while True:
                try:
                    text = self.line.read().strip()
                except EOFError:
                    return 0
                try:
                    if text.startswith("/"):
                        with terminal.ctrl_c_raises():
                            if not self.command(text):
                                return 0
                    elif text:
                        self.answer(text)
                except KeyboardInterrupt:
                    terminal.note("(stopped)")

    def _greet(self, greeting: str) -> None:
        if sys.stdout.isatty() and not self.options.json:
            terminal.say(f"{self._cue(self.persona.name)}{terminal.defused(greeting)}\n")
        else:
            terminal.note(f"{self.persona.name}: {greeting}")

    def answer(self, text: str) -> int:
        """Show the answer to `text` as it is sampled; 2 where it was refused, 0 otherwise."""
        typed = sys.stdin.isatty()
        cue = self._cue(self.persona.name) if typed and sys.stdout.isatty() else ""
        view = None if self.options.json else open_view(cue)
        try:
            pieces = self.conversation.reply(text)
            if self.keeper:
                self.keeper.asked(text)
            with terminal.ctrl_c_stops(PATIENCE if typed else 0) as interrupted:
                self._show(pieces, view, interrupted)
        except TownhallError as error:
            terminal.complain(str(error))
            if not view:
                terminal.say(report.error_as_json(error) + "\n")
            return 2
        self._conclude(interrupted, view)
        interrupted = interrupted or self._remember()
        interrupted.leave()
        if interrupted and not typed:
            raise KeyboardInterrupt  # in a pipe nobody is left to go on
        return 0

    def _show(self, pieces: Generator[str, None, None], view: View | None, interrupted: terminal.Interrupt) -> None:
        """Until the answer is over or nobody wants it any more; it is kept as far as it was shown."""
        try:
            for piece in pieces:
                if view and not terminal.reached(view.push, piece):
                    interrupted.ask(leaving=terminal.UNREAD)
                if interrupted:
                    break
        except KeyboardInterrupt:
            interrupted.ask()
        finally:
            pieces.close()

    def _conclude(self, interrupted: terminal.Interrupt, view: View | None) -> None:
        reply = self.conversation.last
        assert reply is not None
        if self.keeper:
            self.keeper.answered(reply)
        interrupted.leave()  # nobody is there to be told more
        if view:
            view.close()
        else:
            terminal.say(terminal.harmless(report.as_json(reply, self.loaded), sys.stdout) + "\n")
        report.account(reply, self.loaded)
        if line := reply.receipt.describe():
            terminal.note(line)
        if interrupted:
            terminal.note("(stopped)")
        elif reply.finish_reason == "length":
            terminal.note(f"(cut off after {reply.tokens} tokens)")
        if self.options.timing:
            terminal.note(report.as_timing(reply, self.loaded))

    def _remember(self) -> terminal.Interrupt:
        """The answer is shown: what the next turn would push out of the window is written down now, until Ctrl-C."""

        def show(done: int, total: int) -> None:
            terminal.progress(f"{self.persona.name} is taking notes of what leaves the window: {done} of {total}")

        with self.loaded.watch.lap("write memories"), terminal.ctrl_c_stops() as interrupted:
            fold = self.conversation.after_reply(lambda: bool(interrupted), show)
        if fold:
            terminal.note(fold.describe())
        return interrupted

    def command(self, text: str) -> bool:
        """Do as a line beginning with / says; False to leave."""
        name = text.split()[0]
        if name in {"/exit", "/quit", "/bye"}:
            return False
        if name == "/context":
            terminal.note(self.conversation.usage().describe())
            if text.split()[1:] == ["full"]:
                terminal.note(self.conversation.history())
        elif name == "/reset":
            self.conversation.reset()
            if self.keeper:
                self.keeper.reset()
            terminal.note(f"{self.persona.name} has forgotten everything you said")
        elif name == "/help":
            terminal.note(HELP)
        else:
            terminal.note(f"there is no {name}; /help lists what there is")
        return True

    def _cue(self, name: str) -> str:
        return terminal.styled(terminal.defused(f"{name}: "), sys.stdout, bold=True, fg="magenta")
