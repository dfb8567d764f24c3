"""The model's own chat template, for instruct models: rendered with the words of the messages, which stay marked as words.

A template sees what it was written for, the very texts, and may cut or move them. What it writes itself is told from what it makes of
messages by `marked_text`: only the former may spell control tokens.

At load it is tried on a few made-up turns. If each turn adds its own text and changes nothing before it, as with nearly all, the parts are
learnt there (`turn_by_turn`), and a turn is encoded once, when it is said. That holds for made-up turns: `Prompt` compares every prompt
with `whole`, and goes by that where they differ: a template may treat some words or lengths in its own way, or tell the date.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from townhall.errors import TemplateError
from townhall.formats.call_syntax import GENERAL, CallSyntax, parsed, template_id
from townhall.formats.chat_log import END
from townhall.formats.marked_text import SOMETHING_SAID, joined, marked, runs, words
from townhall.formats.prompt_pieces import Piece, PromptTurn, text_of
from townhall.formats.sandbox import INSTEAD, Sandbox, TooMuchWork
from townhall.persona import Persona

SWITCHES = ("enable_thinking", "thinking")  # names of one variable in the templates of several makers
DESCRIPTION = -2  # whose words, beside indices of turns and SOMETHING_SAID


@dataclass(frozen=True)
class _Parts:
    """What a prompt is made of. Where turns depend on each other there is only what the first one begins with, and the last one's cue."""

    head: list[Piece]
    opening: list[Piece]
    cue: list[Piece]
    lead: list[Piece]  # white space between the cue and an answer that is history
    close: list[Piece]
    regular: bool


class ChatTemplate:
    """Description as system message, examples as earlier turns.

    Where the template refuses a system message, or leaves it out, the description opens the first user turn instead; without a description
    there is no system message of ours. A template that looks for parts in a message (text, images) is given one part of text.
    """

    name = "chat_template"

    def __init__(
        self,
        persona: Persona,
        source: str,
        bos_token: str = "",
        eos_token: str = "",
        think: bool | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        syntax: CallSyntax | None = None,
    ):
        """`think`: whether the model is to think before it answers, where the template knows the switch; None leaves it to the template.

        `tools`: functions as OpenAI's API describes them, for a template that lists them, and `syntax` how it has their calls.
        """
        self.persona = persona
        # without a persona, a line that begins like a cue is text like any other
        played = (END, f"\n{persona.user}:") if persona.instructions else ()
        self.stop = tuple(dict.fromkeys((*played, *persona.stop)))
        self._sandbox = Sandbox(source)
        self._variables: dict[str, Any] = {"bos_token": bos_token, "eos_token": eos_token, "tools": None, "documents": None}
        self._syntax = syntax or GENERAL
        if tools:
            self._variables["tools"] = marked(list(tools))
        if think is not None:
            self._variables |= dict.fromkeys(SWITCHES, think)
        self._examples = [
            turn for example in persona.examples for turn in (PromptTurn("user", example.user), PromptTurn("assistant", example.reply))
        ]
        self._folded = self._typed = False
        self._parts = self._learn()
        self._cuts = self._edges()

    @property
    def turn_by_turn(self) -> bool:
        return self._parts.regular

    @property
    def fixed_head(self) -> bool:
        return self._parts.regular

    def head(self) -> list[Piece]:
        return self._parts.head

    def turn(self, text: str) -> list[Piece]:
        return [*self._parts.opening, self._said("user", text), *self._parts.cue]

    def reply(self, text: str) -> list[Piece]:
        return [*self._parts.lead, self._said("assistant", text)]

    def close(self) -> list[Piece]:
        return self._parts.close

    def whole(self, turns: Sequence[PromptTurn]) -> list[Piece]:
        return self._render(turns, cue=True)

    def _said(self, role: str, text: str) -> Piece:
        """Words with the white space at their ends that the template leaves them."""
        start, end = self._cuts.get(role, (False, False))
        text = text.lstrip() if start else text
        return Piece(text.rstrip() if end else text, special=False)

    def _learn(self) -> _Parts:
        """The parts, with the description as system message if that can be; TemplateError where the template does not take us."""
        refusal: TemplateError | None = None
        for typed, folded in product((False, True), (False, True) if self.persona.instructions else (False,)):
            self._typed, self._folded = typed, folded
            try:
                return self._seams()
            except TooMuchWork:  # any other way would take as long
                raise
            except TemplateError as error:
                refusal = refusal or error
        raise refusal or AssertionError("a template was neither usable nor refused")

    def _seams(self) -> _Parts:
        before, cue = self._around(_ONE, cue=True)
        head, answered, between, _ = two = self._around(_TWO, cue=True)
        # white space between cue and answer is the model's own to sample
        lead = _without_prefix(answered, cue)
        lead = lead if lead is not None and not text_of(lead).strip() else None
        common = next((at for at, (a, b) in enumerate(zip(before, head, strict=False)) if a != b), min(len(before), len(head)))
        irregular = _Parts(before[:common], [], cue, lead or [], [], regular=False)
        try:
            three = self._around(_THREE, cue=True)
            *_, close = self._around(_TWO[:-1], cue=False)
        except TemplateError:  # a shorter conversation is taken, and not refused
            return irregular
        opening = _without_prefix(between, close)
        if two != [before, answered, between, cue] or three != [before, answered, between, answered, between, cue]:
            return irregular
        if opening is None or not cue or lead is None or (pinned := _without_suffix(before, opening)) is None:
            return irregular
        return _Parts(pinned, opening, cue, lead, close, regular=True)

    def _edges(self) -> dict[str, tuple[bool, bool]]:
        """role → which ends of its words the template cuts white space from."""
        padded = [replace(turn, text=f" \n{turn.text}\n ") for turn in _TWO]
        try:
            said = [piece for piece in self._render(padded, cue=True) if piece.turn is not None]
        except TemplateError:
            return {}
        return {padded[piece.turn or 0].role: (not piece.text[:1].isspace(), not piece.text[-1:].isspace()) for piece in said}

    def _called(self, turn: PromptTurn, content: str, index: int) -> dict[str, Any]:
        """A message that calls functions, or holds what one returned."""
        if turn.role == "tool":
            id = template_id(turn.call_id)
            return {"role": "tool", "content": content, "tool_call_id": words(id), "name": words(turn.name, index)}
        calls = []
        for call in turn.calls:
            arguments = words(call.arguments, index) if self._syntax.arguments_as_text else marked(parsed(call.arguments), index)
            function = {"name": words(call.name, index), "arguments": arguments}
            calls.append({"id": words(template_id(call.id)), "type": "function", "function": function})
        message = self._message(turn.role, content, words(turn.reasoning))
        return {**message, "tool_calls": calls} if content else {**message, "content": self._syntax.empty, "tool_calls": calls}

    def _message(self, role: str, content: str, reasoning: str = "") -> dict[str, Any]:
        # the names under which templates look for thoughts, as transformers has it
        thoughts = {"thinking": reasoning, "reasoning_content": reasoning} if reasoning else {}
        return {"role": role, "content": [{"type": "text", "text": content}] if self._typed else content, **thoughts}

    def _around(self, turns: Sequence[PromptTurn], cue: bool) -> list[list[Piece]]:
        """What the template writes around the contents of `turns`: before the first, between each two, after the last."""
        parts: list[list[Piece]] = [[]]
        expected = 0
        for piece in self._render(turns, cue):
            if piece.turn is None:
                parts[-1].append(piece)
            elif piece.turn == expected and piece.text == turns[expected].text:
                parts.append([])
                expected += 1
            else:
                raise TemplateError(f"the model's chat template does not keep the order of the messages; {INSTEAD}")
        if expected != len(turns):
            raise TemplateError(f"the model's chat template leaves messages out; {INSTEAD}")
        return parts

    def _render(self, turns: Sequence[PromptTurn], cue: bool) -> list[Piece]:
        """The template's output; only what the template itself wrote is special."""
        description = words(self.persona.instructions, DESCRIPTION)
        messages = [self._message("system", description)] if description and not self._folded else []
        spoken = [*self._examples, *turns]
        for index, turn in enumerate(spoken):
            content = words(turn.text, max(SOMETHING_SAID, index - len(self._examples)))
            if self._folded and index == 0:
                content = joined((description, words("\n\n"), content))
            if turn.calls or turn.role == "tool":
                messages.append(self._called(turn, content, max(SOMETHING_SAID, index - len(self._examples))))
            else:
                messages.append(self._message(turn.role, content, words(turn.reasoning)))
        written = list(runs(self._sandbox.render(messages, self._variables | {"add_generation_prompt": cue})))
        if description.strip() and all(whose != DESCRIPTION for _, whose in written):
            raise TemplateError(f"the model's chat template leaves the persona's description out; {INSTEAD}")
        return [Piece(text, whose is None, whose if whose is not None and whose >= 0 else None) for text, whose in written]


_ONE = [PromptTurn("user", "q")]
_TWO = [*_ONE, PromptTurn("assistant", "a"), PromptTurn("user", "q")]
_THREE = [*_TWO, PromptTurn("assistant", "a"), PromptTurn("user", "q")]


def _without_prefix(pieces: list[Piece], prefix: list[Piece]) -> list[Piece] | None:
    """What is left of the template's own text after `prefix`; None where it does not begin so."""
    text, start = text_of(pieces), text_of(prefix)
    return _special(text[len(start) :]) if text.startswith(start) else None


def _without_suffix(pieces: list[Piece], suffix: list[Piece]) -> list[Piece] | None:
    """`pieces` without the text at their end; None where the last one does not end so."""
    end = text_of(suffix)
    if not end:
        return pieces
    if not pieces or not pieces[-1].special or not pieces[-1].text.endswith(end):
        return None
    return [*pieces[:-1], *_special(pieces[-1].text[: len(pieces[-1].text) - len(end)])]


def _special(text: str) -> list[Piece]:
    return [Piece(text, special=True)] if text else []
