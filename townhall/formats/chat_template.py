"""The model's own chat template, for instruct models: rendered around placeholders, so that no message is read as template."""

import re
import secrets
from collections.abc import Sequence

from townhall.errors import TemplateError
from townhall.formats.chat_log import END
from townhall.formats.metered_jinja import INSTEAD, Sandbox
from townhall.formats.prompt_pieces import Piece, PromptTurn
from townhall.persona import Persona


class ChatTemplate:
    """Description as system message, examples as earlier turns.

    Where the template knows no system role, or puts it anywhere but at the start, the description opens the first user
    turn instead; without a description there is no system message of ours. At load the template is tried on a few made-up
    turns. If each turn adds its own text and changes
    nothing before it, as nearly all do, the parts are learnt there and the template never runs again; otherwise
    `turn_by_turn` is False and every prompt is rendered whole.
    """

    name = "chat_template"

    def __init__(self, persona: Persona, source: str, bos_token: str = "", eos_token: str = ""):
        self.persona = persona
        # without a persona, a line that begins like a cue is text like any other
        played = (END, f"\n{persona.user}:") if persona.instructions else ()
        self.stop = tuple(dict.fromkeys((*played, *persona.stop)))
        self._sandbox = Sandbox(source)
        self._variables = {"bos_token": bos_token, "eos_token": eos_token, "tools": None, "documents": None}
        self._examples = [
            turn for example in persona.examples for turn in (PromptTurn("user", example.user), PromptTurn("assistant", example.reply))
        ]
        self._folded = False
        self._head, self._opening, self._cue, self._close = self._learn()

    def head(self) -> list[Piece]:
        return self._head

    def turn(self, text: str) -> list[Piece]:
        return [*self._opening, Piece(text.strip(), special=False), *self._cue]

    def close(self) -> list[Piece]:
        return self._close

    def whole(self, turns: list[PromptTurn]) -> list[Piece]:
        return self._render(turns, cue=True)

    def _learn(self) -> tuple[list[Piece], list[Piece], list[Piece], list[Piece]]:
        """Head, opening, cue and close; decides between system role and folding, and whether turns stand by themselves."""
        refusal: TemplateError | None = None
        usable: list[bool] = []
        ways = (False, True) if self.persona.instructions else (False,)
        for self._folded in ways:
            try:
                learnt = self._seams()
            except TemplateError as error:
                refusal = refusal or error
                continue
            usable.append(self._folded)
            if learnt:
                self.turn_by_turn = True
                return learnt
        if not usable:
            raise refusal or AssertionError("a template was neither usable nor refused")
        self._folded, self.turn_by_turn = usable[0], False
        head, cue = self._around(_ONE, cue=True)
        return head, [], cue, []

    def _seams(self) -> tuple[list[Piece], list[Piece], list[Piece], list[Piece]] | None:
        """The parts of a prompt where every turn stands by itself, else None; TemplateError where the template does not take us."""
        before, cue = self._around(_ONE, cue=True)
        _, answered, between, _ = two = self._around(_TWO, cue=True)
        three = self._around(_THREE, cue=True)
        *_, close = self._around(_TWO[:-1], cue=False)
        opening = _without_prefix(between, close)
        regular = two == [before, answered, between, cue] and three == [before, answered, between, answered, between, cue]
        if opening is None or not cue or not regular:
            return None
        head = _without_suffix(before, opening)
        # white space between cue and answer is the model's own to sample
        lead = _without_prefix(answered, cue)
        if head is None or lead is None or _text(lead).strip():
            return None
        return head, opening, cue, close

    def _around(self, turns: list[PromptTurn], cue: bool) -> list[list[Piece]]:
        """What the template writes around the contents of `turns`: before the first, between each two, after the last."""
        parts: list[list[Piece]] = [[]]
        expected = 0
        for piece in self._render(turns, cue):
            if piece.turn is None:
                parts[-1].append(piece)
            elif piece.turn == expected:
                parts.append([])
                expected += 1
            else:
                raise TemplateError(f"the model's chat template does not keep the order of the messages; {INSTEAD}")
        if expected != len(turns):
            raise TemplateError(f"the model's chat template leaves messages out; {INSTEAD}")
        return parts

    def _render(self, turns: Sequence[PromptTurn], cue: bool) -> list[Piece]:
        """The template's output with every content back in its place; only what the template itself wrote is special."""
        contents: dict[str, Piece] = {}

        def placeholder(text: str, turn: int | None = None) -> str:
            # unguessable, so that neither template nor user can forge the border between their words
            name = f"x{secrets.token_hex(12)}x"
            contents[name] = Piece(text.strip(), special=False, turn=turn)
            return name

        description = placeholder(self.persona.instructions) if self.persona.instructions else ""
        messages = [{"role": "system", "content": description}] if description and not self._folded else []
        spoken = [*self._examples, *turns]
        for index, turn in enumerate(spoken):
            own = index - len(self._examples)
            content = placeholder(turn.text, own if own >= 0 else None)
            if self._folded and index == 0:
                content = f"{description}\n\n{content}"
            messages.append({"role": turn.role, "content": content})
        text = self._sandbox.render(messages, self._variables | {"add_generation_prompt": cue})
        if description not in text:
            raise TemplateError(f"the model's chat template leaves the persona's description out; {INSTEAD}")
        pieces = []
        for part in re.split(f"({'|'.join(contents)})", text):
            if part:
                pieces.append(contents.get(part) or Piece(part, special=True))
        return pieces


_ONE = [PromptTurn("user", "q")]
_TWO = [*_ONE, PromptTurn("assistant", "a"), PromptTurn("user", "q")]
_THREE = [*_TWO, PromptTurn("assistant", "a"), PromptTurn("user", "q")]


def _text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def _without_prefix(pieces: list[Piece], prefix: list[Piece]) -> list[Piece] | None:
    """What is left of the template's own text after `prefix`; None where it does not begin so."""
    text, start = _text(pieces), _text(prefix)
    return _special(text[len(start) :]) if text.startswith(start) else None


def _without_suffix(pieces: list[Piece], suffix: list[Piece]) -> list[Piece] | None:
    """`pieces` without the text at their end; None where the last one does not end so."""
    end = _text(suffix)
    if not end:
        return pieces
    if not pieces or not pieces[-1].special or not pieces[-1].text.endswith(end):
        return None
    return [*pieces[:-1], *_special(pieces[-1].text[: len(pieces[-1].text) - len(end)])]


def _special(text: str) -> list[Piece]:
    return [Piece(text, special=True)] if text else []
