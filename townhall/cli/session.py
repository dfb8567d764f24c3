"""The session: lines in, answers out, at a terminal or in a pipe."""

import sys
from collections.abc import Generator
from contextlib import closing
from io import TextIOWrapper
from pathlib import Path

from ext.tinygrad.errors import TownhallError
from townhall.cli import commands, reply_report, terminal
from townhall.cli.chat_options import ChatOptions
from townhall.cli.chat_setup import check_via
from townhall.cli.chat_state import ChatState
from townhall.cli.commands import CommandResult
from townhall.cli.line_input import LineInput, held, open_line
from townhall.cli.model_loading import Loaded, open_models
from townhall.cli.render import ThoughtsView, View, open_view
from townhall.cli.typeahead import Typeahead
from townhall.conversation import Conversation
from townhall.logbook.log_reader import Log
from townhall.persona import Persona, load_persona
from townhall.persona_sources import check
from townhall.via.errors import RemoteError

PATIENCE = 1.0  # seconds in which a second Ctrl-C is the same one, typed by quick fingers


def run_session(options: ChatOptions, log: Log | None = None) -> int:
    """Talk until the input ends, going on with `log` where there is one; the exit code is 2 where a piped line had to be refused."""
    persona = load_persona(options.personality)  # what is broken ends this here
    check((*persona.lorebooks, *(Path(name).expanduser() for name in options.lorebook)), (*persona.knowledge, *options.knowledge))
    check_via(options)
    with terminal.ends_in_order(), held() as typed:
        chat_state = ChatState(options, open_models(), log)
        session = Session(chat_state, typed)
        session.announce()
        with closing(chat_state):
            code = session.interact() if sys.stdin.isatty() else session.answer_lines()
        if options.profile:
            terminal.note(session.loaded.watch.report())
        return code


class Session:
    """One talk, shown."""

    def __init__(self, chat_state: ChatState, typed: Typeahead | None = None):
        self.chat_state, self._typed = chat_state, typed
        self.line: LineInput | None = None  # where a person types

    @property
    def options(self) -> ChatOptions:
        return self.chat_state.options

    @property
    def persona(self) -> Persona:
        return self.chat_state.persona

    @property
    def loaded(self) -> Loaded:
        return self.chat_state.loaded

    @property
    def conversation(self) -> Conversation:
        return self.chat_state.conversation

    def announce(self) -> None:
        """Say who is there, and how long reading the persona took."""
        name, stats = self.persona.name, self.chat_state.prepared
        if stats.restore_seconds is None:
            terminal.note(f"{name} is ready: {stats.prompt_tokens} tokens in {stats.seconds:.1f} s")
        else:
            restored = f"{stats.prompt_tokens} tokens restored in {stats.restore_seconds:.2f} s"
            terminal.note(f"{name} is ready in {stats.seconds:.1f} s: {restored}")

    def answer_lines(self) -> int:
        """Answer every line of a pipe, commands included; a line that is refused does not end the others."""
        code = 0
        if isinstance(sys.stdin, TextIOWrapper):
            sys.stdin.reconfigure(encoding="utf-8-sig", errors="replace")  # a byte order mark is no word
        for line in sys.stdin:
            text = line.removesuffix("\n")
            if commands.is_command(text):
                outcome = self.command(text.strip())
                if not outcome:
                    code = 2
                elif outcome.leave:
                    break
                elif outcome.say is not None:
                    code = max(code, self.answer(outcome.say, None, outcome.instead, outcome.carry_on))
            elif text.strip():
                code = max(code, self.answer(*self.enriched(text)))
        return code

    def interact(self) -> int:
        """Talk to a person; Ctrl-C stops what is under way, never the session."""
        with terminal.ctrl_c_does_nothing():
            if self.persona.greeting:
                self._greet(self.persona.greeting)
            with self.loaded.watch.lap("set up the line"):
                self.line = line = open_line(lambda: self.persona.user, commands.completions(), keep=self.options.log, typed=self._typed)
            outcome = CommandResult()
            while not outcome.leave:
                try:
                    text = line.read(outcome.line)
                except EOFError:
                    return 0
                instead, outcome = 0 if line.cleared else outcome.instead, CommandResult()
                try:
                    if text.lstrip().startswith("/"):
                        outcome = self._commanded(text.strip())
                    elif text.strip():
                        chosen, words = self.enriched(text, instead)
                        self.answer(chosen, words, instead)
                except KeyboardInterrupt:
                    terminal.note("(stopped)")
            return 0

    def _commanded(self, text: str) -> CommandResult:
        """Do as a line beginning with / says; what is left of it is to be edited, or ends the session."""
        with terminal.ctrl_c_raises():
            outcome = self.command(text) or CommandResult()
        if outcome.greet and self.persona.greeting:
            self._greet(self.persona.greeting)
        if outcome.say is not None:
            self.answer(outcome.say, None, outcome.instead, outcome.carry_on)
            return CommandResult()
        return outcome

    def _greet(self, greeting: str) -> None:
        if sys.stdout.isatty() and not self.options.json:
            view = open_view(self._cue(self.persona.name))
            view.push(greeting)
            view.close()
        else:
            terminal.note(f"{self.persona.name}: {greeting}")

    def enriched(self, own: str, instead: int = 0) -> tuple[str, dict[str, str] | None]:
        """(what is asked in the end, the own words beside those that were offered), as --enrich says: None where nothing was offered.

        Under `ask` a person chooses; where none can be asked, as in a pipe, the own words are sent.
        """
        if self.options.enrich == "off" or (self.options.enrich == "ask" and self.line is None):
            return own, None
        with self.loaded.watch.lap("rewrite questions"), terminal.ctrl_c_stops() as interrupted:
            terminal.progress("looking at what the question points at")
            offer = self.chat_state.enrich(own, instead, lambda: bool(interrupted))
        terminal.progress("")
        interrupted.leave()
        if not offer.changed:
            return own, None
        words = {"own": own, "offered": offer.text}
        if self.line is None or self.options.enrich == "always":
            terminal.note(f"asked as: {offer.text}")
            return offer.text, words
        terminal.note("this can be understood alone; Enter sends it, as you change it; Ctrl-C and Enter send your own words")
        try:
            chosen = self.line.read(offer.text).strip()
        except EOFError:
            chosen = ""
        return chosen or own, words

    def answer(self, text: str, words: dict[str, str] | None = None, instead: int = 0, carry_on: bool = False) -> int:
        """Show the answer to `text`, in the place of the last `instead` exchanges; 2 where it was refused, 0 otherwise.

        With `carry_on` the last answer is shown and carried on instead, with the words `text` in between. `words` are noted with it: the
        user's own, and those that were offered in their place.
        """
        typed = sys.stdin.isatty()
        cue = self._cue(self.persona.name) if typed and sys.stdout.isatty() else ""
        view = None if self.options.json else open_view(cue, self.options.markdown)
        thoughts = ThoughtsView(shown=view is not None)
        interrupted = terminal.Interrupt()
        try:
            watched = (lambda: bool(interrupted), self._reading, thoughts.push)
            pieces = self.chat_state.carry_on(text, *watched) if carry_on else self.chat_state.ask(text, instead, *watched, words)
        except TownhallError as error:
            return self._refuse(error)
        try:
            with terminal.ctrl_c_stops(PATIENCE if typed else 0, interrupted):
                self._show(pieces, view, thoughts, interrupted)
        except TownhallError as error:
            if isinstance(error, RemoteError) and error.kept:
                self._conclude(interrupted, view)
            else:
                self.chat_state.failed()
            return self._refuse(error)
        self._conclude(interrupted, view)
        interrupted = interrupted or self._remember()
        interrupted.leave()
        if interrupted and not typed:
            raise KeyboardInterrupt  # in a pipe there is no next line to wait for
        return 0

    def _reading(self, done: int, total: int) -> None:
        """A line where the prompt takes more than one pass, gone when the answer begins."""
        terminal.progress(f"{self.persona.name} is reading: {done} of {total} tokens" if done < total else "")

    def _refuse(self, error: TownhallError) -> int:
        terminal.complain(str(error))
        if self.options.json:
            terminal.say(reply_report.error_as_json(error) + "\n")
        return 2

    def _show(self, pieces: Generator[str, None, None], view: View | None, thoughts: ThoughtsView, interrupted: terminal.Interrupt) -> None:
        """Until the answer is over or interrupted; it is kept as far as it was shown."""
        begun = False
        try:
            for piece in pieces:
                begun = True
                thoughts.close()
                if view and not terminal.reached(view.push, piece):
                    interrupted.ask(leaving=terminal.UNREAD)
                if interrupted:
                    break
        except KeyboardInterrupt:
            interrupted.ask()
        finally:
            pieces.close()
            thoughts.close()
            if not begun:
                terminal.progress("")  # it was still being counted what is read

    def _conclude(self, interrupted: terminal.Interrupt, view: View | None) -> None:
        reply = self.conversation.last
        assert reply is not None
        self.chat_state.answered()
        interrupted.leave()  # the terminal has gone
        if view:
            view.close()
        else:
            terminal.say(terminal.harmless(reply_report.as_json(reply, self.loaded), sys.stdout) + "\n")
        reply_report.account(reply, self.loaded)
        for line in filter(None, (reply.receipt.describe(), reply.receipt.cited())):
            terminal.note(line)
        if interrupted:
            terminal.note("(stopped)")
        elif reply.finish_reason == "length":
            terminal.note(f"(cut off after {reply_report.counted(reply.tokens, 'token')})")
        if self.options.timing and (reply.tokens or not interrupted):
            terminal.note(reply_report.as_timing(reply, self.loaded))

    def _remember(self) -> terminal.Interrupt:
        """The answer is shown: what the next turn would push out of the window is written down now, until Ctrl-C."""

        def show(done: int, total: int) -> None:
            terminal.progress(f"{self.persona.name} is taking notes of what leaves the window: {done} of {total}")

        with self.loaded.watch.lap("write memories"), terminal.ctrl_c_stops() as interrupted:
            fold = self.conversation.after_reply(lambda: bool(interrupted), show)
        if fold:
            terminal.note(fold.describe())
        return interrupted

    def command(self, text: str) -> CommandResult | None:
        """Do as a line beginning with / says, and what is to be done next; None where it was refused."""
        try:
            return commands.run(self.chat_state, text)
        except TownhallError as error:
            self._refuse(error)
            return None

    def _cue(self, name: str) -> str:
        return terminal.styled(terminal.defused(f"{name}: "), sys.stdout, bold=True, fg="magenta")
