"""The chat log, for base models: a page of dialogue that the model carries on."""

from collections.abc import Sequence

from townhall.formats.prompt_pieces import Piece, PromptTurn
from townhall.persona import Persona

END = "[EOS]"


class ChatLog:
    """Description, "<CHAT LOG>", then `User: …` and `Stacy: … [EOS]` lines; a prompt always ends with the reply cue "Stacy: ".

    The cue's space is left to the answer: tokenizers put a word's leading space into the word (" Paris" is one token),
    so a prompt that ends in a space would push the model off the text it was trained on. The page reads the same.
    """

    name = "chat_log"
    turn_by_turn = fixed_head = True

    def __init__(self, persona: Persona):
        self.persona = persona
        self.user_cue, self.reply_cue = f"{persona.user}:", f"{persona.name}:"
        self.stop = tuple(dict.fromkeys((END, f"\n{self.user_cue}", *persona.stop)))

    def head(self) -> list[Piece]:
        lines = [self.persona.instructions, "", "<CHAT LOG>"]
        for example in self.persona.examples:
            lines += [f"{self.user_cue} {self._said(example.user)}", f"{self.reply_cue} {self._said(example.reply)} {END}"]
        return [Piece("\n".join(lines) + "\n", special=False)]

    def turn(self, text: str) -> list[Piece]:
        return [Piece(f"{self.user_cue} {self._said(text)}\n{self.reply_cue}", special=False)]

    def reply(self, text: str) -> list[Piece]:
        return [Piece(f" {text}", special=False)]

    def close(self) -> list[Piece]:
        return [Piece(f" {END}\n", special=False)]

    def whole(self, turns: Sequence[PromptTurn]) -> list[Piece]:
        pieces = self.head()
        for index, turn in enumerate(turns):
            if turn.role == "user":
                pieces += self.turn(turn.text)
            else:
                pieces += [Piece(f" {turn.text}", special=False, turn=index), *self.close()]
        return pieces

    def _said(self, text: str) -> str:
        """Words on the page: a line among them that looks like a cue is indented, so that no message contains another's turn."""
        cues = (self.user_cue, self.reply_cue)
        return "\n".join(f" {line}" if at and line.startswith(cues) else line for at, line in enumerate(text.split("\n")))
