"""Where tokens begin in the text of a prompt and its answer: `text_offset` of OpenAI's completions."""

from collections.abc import Mapping, Sequence

from townhall.language_model import TextTokenizer
from townhall.server.job import AnswerRequest

SPACE = "▁"  # which SentencePiece's tokens have for a space, and cannot tell from one


class TextOffsets:
    """Counts characters from the prompt's beginning, of one choice; a character's later bytes begin where it does."""

    def __init__(self, tokenizer: TextTokenizer, run: AnswerRequest, special: Mapping[int, str]):
        """`special`: control tokens as they are spelled."""
        self._prompt = iter(prompt_offsets(tokenizer, run.ids, run.text, special) if run.echo else ())
        self._at, self._stream = len(run.text), tokenizer.stream(continued=True)

    def next(self, token: int) -> int:
        """Where the next token begins; an echoed prompt's come first."""
        if (at := next(self._prompt, None)) is not None:
            return at
        at = self._at
        self._at += len(self._stream.push(token))
        return at


def prompt_offsets(tokenizer: TextTokenizer, ids: Sequence[int], text: str, special: Mapping[int, str]) -> list[int]:
    """For each of a prompt's ids, where in `text` it begins. Where the tokenizer changed the text, the places are near enough."""
    found: list[int] = []
    plain: list[int] = []
    at = 0
    for token in ids:
        if (spelled := special.get(token)) is None:
            plain.append(token)
            continue
        at = _plain(tokenizer, plain, text, at, found)
        plain = []
        found.append(at)
        # a BOS that was put in front is spelled nowhere
        at += len(spelled) if text.startswith(spelled, at) else 0
    _plain(tokenizer, plain, text, at, found)
    return [min(begin, len(text)) for begin in found]


def _plain(tokenizer: TextTokenizer, ids: Sequence[int], text: str, at: int, found: list[int]) -> int:
    """Places of ordinary tokens from `at` on; returns where they end."""
    stream = tokenizer.stream(continued=True)
    said = [stream.push(token) for token in ids]
    whole = "".join(said)
    held = text[at : at + len(whole)]
    # a space that the tokenizer put in front is no part of the text
    added = int(whole[:1] == " " and whole not in (held, held.replace(SPACE, " ")))
    for piece in said:
        found.append(at)
        at += max(0, len(piece) - added)
        added = 0 if piece else added
    return at
