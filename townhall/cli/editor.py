"""The line editor on prompt_toolkit, whose import takes a while: only a session at a terminal imports this file."""

import sys
from collections.abc import Callable, Iterable, Mapping

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app, run_in_terminal
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.filters import Condition, completion_is_selected, is_searching
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.history import History
from prompt_toolkit.input import create_input
from prompt_toolkit.input.typeahead import store_typeahead
from prompt_toolkit.input.vt100_parser import Vt100Parser
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.output import ColorDepth, Output, create_output
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.styles import Style

from townhall.cli import terminal
from townhall.cli.completer import SlashCompleter
from townhall.cli.line_history import LineHistory
from townhall.cli.typeahead import PASTE_ON

PLACEHOLDER = "say something, or /help"
MENU_ROWS = 8  # kept free below the line while commands are completed
PLAIN = {
    "completion-menu": "noinherit",
    "completion-menu.completion": "noinherit",
    "completion-menu.completion.current": "noinherit reverse",
    "completion-menu.meta.completion": "noinherit",
    "completion-menu.meta.completion.current": "noinherit reverse",
    "scrollbar.background": "noinherit",
    "scrollbar.button": "noinherit reverse",
}
COLOURED = {
    "cue": "bold",
    "placeholder": "ansibrightblack",
    "completion-menu.completion": "noinherit",
    "completion-menu.completion.current": "noinherit bold ansicyan",
    "completion-menu.meta.completion": "noinherit ansibrightblack",
    "completion-menu.meta.completion.current": "noinherit ansicyan",
}


class Editor:
    """A line that can be edited, with history, completion and several rows."""

    def __init__(self, cue: Callable[[], str], history: LineHistory, commands: Mapping[str, str], early: bytes = b""):
        self._cue, self._info, self._first, self.cleared = cue, False, True, False
        """`early` was typed before the editor was there."""
        suggestions = SlashCompleter(commands)
        colour = terminal.colourful(sys.stdout)
        source = create_input(sys.stdin)
        self._session: PromptSession[str] = PromptSession(
            message=self._prompt,
            placeholder=self._placeholder,
            multiline=True,  # a paste and Alt-Enter may bring line breaks; the keys below make Enter send all the same
            prompt_continuation=lambda width, row, wrapped: " " * width,
            history=_Remembered(history),
            completer=suggestions,
            complete_while_typing=Condition(_is_command),
            complete_in_thread=False,
            reserve_space_for_menu=MENU_ROWS,
            key_bindings=self._keys(suggestions),
            enable_suspend=True,
            enable_open_in_editor=True,  # Ctrl-X Ctrl-E
            search_ignore_case=True,
            style=Style.from_dict(PLAIN | (COLOURED if colour else {})),
            color_depth=None if colour else ColorDepth.DEPTH_1_BIT,
            include_default_pygments_style=False,
            input=source,
            output=_output(),
        )
        keys: list[KeyPress] = []
        Vt100Parser(keys.append).feed(early.decode(errors="replace"))
        store_typeahead(source, keys)

    def read(self, prefill: str = "") -> str:
        """Ctrl-C empties the line; EOFError for Ctrl-D on an empty one."""
        self.cleared = False
        try:
            # Ctrl-C is a key here; as a signal it was meant for what ran before, and may be heard after keys that were typed later
            line = self._session.prompt(default=terminal.defused(prefill), handle_sigint=False)
            return line.encode(errors="replace").decode()  # keys that are no UTF-8 come as lone surrogates
        finally:
            self._first = False
            terminal.say(PASTE_ON)  # the editor has turned it off; a paste may come while the answer is read

    def _prompt(self) -> StyleAndTextTuples:
        return [("class:cue", terminal.defused(f"{self._cue()}: "))]

    def _placeholder(self) -> StyleAndTextTuples:
        return [("class:placeholder", PLACEHOLDER)] if self._first and not get_app().is_done else []

    def _keys(self, suggestions: SlashCompleter) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("enter", filter=~is_searching)
        def send(event: KeyPressEvent) -> None:
            event.current_buffer.validate_and_handle()

        @keys.add("enter", filter=completion_is_selected)
        def take(event: KeyPressEvent) -> None:
            """What is chosen in the menu; the next Enter sends it."""
            event.current_buffer.complete_state = None

        @keys.add("tab", filter=~is_searching & ~completion_is_selected)
        def complete(event: KeyPressEvent) -> None:
            """The one that fits, at once; of several, what they have in common."""
            buffer = event.current_buffer
            offered = list(suggestions.get_completions(buffer.document, CompleteEvent(completion_requested=True)))
            if len(offered) == 1:
                buffer.apply_completion(offered[0])
            elif offered:
                buffer.start_completion(insert_common_part=True)

        @keys.add("escape", "enter", filter=~is_searching)
        @keys.add("c-j", filter=~is_searching)
        def add_line(event: KeyPressEvent) -> None:
            event.current_buffer.newline(copy_margin=False)

        @keys.add("c-c", filter=~is_searching)
        def clear(event: KeyPressEvent) -> None:
            event.current_buffer.reset()
            self.cleared = True
            if not self._info:
                run_in_terminal(lambda: terminal.note(terminal.HOW_TO_LEAVE))
            self._info = True

        return keys


class _Remembered(History):
    """The file's lines as the editor wants them: the newest first."""

    def __init__(self, lines: LineHistory):
        super().__init__()
        self._lines = lines

    def load_history_strings(self) -> Iterable[str]:
        return [terminal.defused(line) for line in reversed(self._lines.load())]

    def store_string(self, string: str) -> None:
        self._lines.append(string)


def _is_command() -> bool:
    return get_app().current_buffer.document.text_before_cursor.startswith("/")


def _output() -> Output:
    output = create_output(sys.stdout)
    if isinstance(output, Vt100_Output):
        # asking the terminal where its cursor is would give the menu a little more room, and leaves answers in the input where it is slow
        output.enable_cpr = False
    return output
