"""The session: lines in, answers out, at a terminal or in a pipe."""

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from io import TextIOWrapper

from ext.tinygrad.errors import TownhallError
from townhall.cli import report, terminal
from townhall.cli.loading import Loaded, load
from townhall.cli.options import ChatOptions
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


def run_session(options: ChatOptions) -> int:
    """Talk until the input ends; the exit code is 2 where a piped line had to be refused."""
    persona = load_persona(options.personality)
    loaded = load(options)
    session = Session(options, persona, loaded)
    session.prepare()
    code = session.interact() if sys.stdin.isatty() else session.answer_lines()
    if options.profile:
        terminal.note(loaded.watch.report())
    return code


class Session:
    """One conversation, shown."""

    def __init__(self, options: ChatOptions, persona: Persona, loaded: Loaded):
        self.options, self.persona, self.loaded = options, persona, loaded
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
        """Talk to a person."""
        if self.persona.greeting:
            greeting = f"{self._cue(self.persona.name)}{self.persona.greeting}"
            terminal.say(f"{greeting}\n") if sys.stdout.isatty() and not self.options.json else terminal.note(greeting)
        for text in self._typed_lines():
            if text.startswith("/"):
                if not self.command(text):
                    break
            elif text:
                self.answer(text)
        return 0

    def answer(self, text: str) -> int:
        """Show the answer to `text` as it is sampled; 2 where it was refused, 0 otherwise."""
        cue = self._cue(self.persona.name) if sys.stdin.isatty() and sys.stdout.isatty() else ""
        quiet = self.options.json
        try:
            pieces = self.conversation.reply(text)
            if self.keeper:
                self.keeper.asked(text)
            with terminal.ctrl_c_stops() as interrupted:
                for piece in pieces:
                    if not quiet:
                        terminal.say(cue + piece)  # not earlier: a line of progress would wipe the cue away
                        cue = ""
                    if interrupted:
                        break
                pieces.close()
        except TownhallError as error:
            terminal.complain(str(error))
            if quiet:
                terminal.say(report.error_as_json(error) + "\n")
            return 2
        self._conclude(bool(interrupted))
        interrupted = interrupted or self._remember()
        if interrupted and not sys.stdin.isatty():
            raise KeyboardInterrupt  # in a pipe nobody is left to go on
        return 0

    def _conclude(self, interrupted: bool) -> None:
        reply = self.conversation.last
        assert reply is not None
        if self.keeper:
            self.keeper.answered(reply)
        terminal.say(report.as_json(reply, self.loaded) + "\n" if self.options.json else "\n")
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
        return terminal.styled(f"{name}: ", sys.stdout, bold=True, fg="magenta")

    def _typed_lines(self) -> Iterator[str]:
        """What is typed, line by line, until Ctrl-D; Ctrl-C only clears the line."""
        editing = sys.stdout.isatty()
        if editing:
            with suppress(ImportError):  # Windows has none
                import readline  # noqa: F401  (gives input() line editing and a history)
        while True:
            try:
                if editing:
                    line = input(_invisible(terminal.styled(f"{self.persona.user}: ", sys.stdout, bold=True)))
                else:
                    sys.stderr.write(f"{self.persona.user}: ")  # stdout is somebody else's
                    sys.stderr.flush()
                    line = sys.stdin.readline()
                    if not line:
                        raise EOFError
            except EOFError:
                terminal.say("\n") if editing else sys.stderr.write("\n")
                return
            except KeyboardInterrupt:
                sys.stderr.write("\n")
                terminal.note("(Ctrl-D or /exit leaves)")
                continue
            yield line.strip()


def _invisible(prompt: str) -> str:
    """Mark escape sequences for readline, which must know how wide the prompt is."""
    return re.sub("(\x1b\\[[0-9;]*m)", "\x01\\1\x02", prompt)
