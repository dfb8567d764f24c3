"""What a reasoning model thinks before it answers, told from what it says: `<think>…</think>` at the beginning of a reply."""

OPEN, CLOSE = "<think>", "</think>"


class ThoughtFilter:
    """Text in, (thoughts, words) out; what could still be a part of a tag is held back. Only the beginning of a reply is looked at."""

    def __init__(self, thinking: bool = False):
        """`thinking`: the prompt has opened the tag; a model may do so again."""
        self.thinking = thinking
        self.over = False  # whatever comes now is said
        self._begun = False
        self._held = ""

    def push(self, text: str) -> tuple[str, str]:
        """Take the next piece."""
        if self.over:
            return "", text
        text = self._held + text
        if not self._begun:
            start = text.lstrip()
            if OPEN.startswith(start):
                self._held = text
                return "", ""
            self._begun = True
            if start.startswith(OPEN):
                self.thinking, text = True, start.removeprefix(OPEN)
            elif not self.thinking:
                self._held, self.over = "", True
                return "", text
        thoughts, closed, said = text.partition(CLOSE)
        if closed:
            self._held, self.thinking, self.over = "", False, True
            return thoughts, said
        undecided = next((n for n in range(min(len(text), len(CLOSE) - 1), 0, -1) if CLOSE.startswith(text[-n:])), 0)
        self._held = text[len(text) - undecided :]
        return text[: len(text) - undecided], ""

    def flush(self) -> tuple[str, str]:
        """The text has ended."""
        held, self._held = self._held, ""
        return (held, "") if self.thinking else ("", held)


def left_open(cue: str) -> bool:
    """Does a prompt that ends in `cue` end in the model's thoughts?"""
    return cue.rfind(OPEN) > cue.rfind(CLOSE)
