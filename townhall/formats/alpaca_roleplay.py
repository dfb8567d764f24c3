"""The prompt of the role-play bots that were made with alpaca, for models trained on it.

After https://github.com/teknium1/alpaca-roleplay-discordbot: a character block and the talk so far stand in the instruction, the newest
message in the input. Fields that a persona does not have are left out, where the original leaves a blank line.
"""

from collections.abc import Sequence

from townhall.formats.prompt_pieces import Piece, PromptTurn
from townhall.persona import Persona

ROLE = "Role play as character that is described in the following lines. You always stay in character."
REMEMBER = "Remember, you always stay on character. You are the character described above."
ALWAYS = "Always speak with new and unique messages that haven't been said in the chat history."
RESPOND = "Respond to this message as your character would:"
INSTRUCTION, INPUT, RESPONSE = "### Instruction:", "### Input:", "### Response:"


class AlpacaRoleplay:
    """What was said moves from the input into the instruction with the next message, so that no prompt is the last one and a turn.

    As in a chat log, the space after the reply cue is left to the answer.
    """

    name = "alpaca_roleplay"
    turn_by_turn = False
    fixed_head = True

    def __init__(self, persona: Persona):
        self.persona = persona
        self.user_cue, self.reply_cue = f"{persona.user}:", f"{persona.name}:"
        self.stop = tuple(dict.fromkeys(("\n### ", f"\n{self.user_cue}", *persona.stop)))

    def head(self) -> list[Piece]:
        persona = self.persona
        about = (("backstory and history", persona.description), ("personality", persona.style), ("common greetings", persona.greeting))
        lines = [INSTRUCTION, ROLE, f"Your name is {persona.name}."]
        lines += [f"Your {what} {'is' if what == 'personality' else 'are'}: {text}" for what, text in about if text]
        lines.append(REMEMBER)
        for example in persona.examples:
            lines += [f"{self.user_cue} {self._said(example.user)}", f"{self.reply_cue} {self._said(example.reply)}"]
        return [Piece("\n".join(lines) + "\n", special=False)]

    def turn(self, text: str) -> list[Piece]:
        asked = f"\n{ALWAYS}\n\n{RESPOND}\n{INPUT}\n{self.user_cue} {self._said(text)}\n{RESPONSE}\n{self.reply_cue}"
        return [Piece(asked, special=False)]

    def reply(self, text: str) -> list[Piece]:
        return [Piece(f" {text}", special=False)]

    def close(self) -> list[Piece]:
        return [Piece("\n", special=False)]

    def whole(self, turns: Sequence[PromptTurn]) -> list[Piece]:
        pieces = self.head()
        if len(turns) == 1:
            pieces.append(Piece(f"{self.reply_cue} {self.persona.greeting or 'Hello!'}\n", special=False))
        for index, turn in enumerate(turns[:-1]):
            if turn.role == "user":
                pieces.append(Piece(f"{self.user_cue} {self._said(turn.text)}\n{self.reply_cue}", special=False))
            else:
                pieces += [Piece(f" {turn.text}", special=False, turn=index), *self.close()]
        return [*pieces, *self.turn(turns[-1].text)]

    def _said(self, text: str) -> str:
        """Words in a prompt: a line among them that looks like a cue or a heading is indented."""
        marks = (self.user_cue, self.reply_cue, "### ")
        return "\n".join(f" {line}" if at and line.startswith(marks) else line for at, line in enumerate(text.split("\n")))
