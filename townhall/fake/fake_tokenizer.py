"""A tokenizer without a vocabulary file: a word is a token."""

import re
import zlib
from collections.abc import Iterable

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIALS = ("<s>", "</s>", "<|im_start|>", "<|im_end|>")


class FakeTokenizer:
    """One token per word with its leading space, per digit and per other character; a text's id is its checksum."""

    def __init__(self, chat_template: str | None = CHATML, add_bos: bool = True, prefix_space: bool = False):
        self.chat_template, self.add_bos, self.prefix_space = chat_template, add_bos, prefix_space
        self.space_after_special = prefix_space
        self.texts: dict[int, str] = dict(enumerate(SPECIALS))
        self.special_ids = {text: n for n, text in enumerate(SPECIALS)}
        self._ids: dict[str, int] = {}
        self.bos_token, self.eos_token, self.bos_id, self.eos_id = "<s>", "</s>", 0, 1
        self.stop_ids, self.stop_is_chosen = frozenset({1, 3}), False

    @property
    def vocab_size(self) -> int:
        return 1 << 31  # any id may turn out to be a word's

    def id(self, text: str) -> int:
        """The id of a token's text: the same in every process, so that what was kept can be repeated."""
        if text in self.special_ids:
            return self.special_ids[text]
        if text not in self._ids:
            number = zlib.crc32(text.encode(errors="replace")) >> 1
            while number in self.texts:  # another text's, or a special token's
                number += 1
            self._ids[text], self.texts[number] = number, text
        return self._ids[text]

    def encode(self, text: str, bos: bool = True, special: bool = True) -> list[int]:
        return self.encode_pieces([(text, special)], bos)

    def encode_pieces(self, pieces: Iterable[tuple[str, bool]], bos: bool = True, continued: bool = False) -> list[int]:
        ids: list[int] = []
        plain, fresh = "", not continued

        def settle() -> None:
            nonlocal plain, fresh
            if plain:
                text = " " + plain if fresh and self.prefix_space else plain
                ids.extend(self.id(word) for word in re.findall(r" ?[^\W\d]+| ?\d| ?[^\w\s]|\s", text))
                plain, fresh = "", False

        for text, special in pieces:
            for part in re.split(f"({'|'.join(map(re.escape, SPECIALS))})", text) if special else [text]:
                if special and part in self.special_ids:
                    settle()
                    ids.append(self.special_ids[part])
                    fresh = True
                else:
                    plain += part
        settle()
        return [0, *ids] if bos and self.add_bos and ids[:1] != [0] else ids

    def decode(self, ids: Iterable[int]) -> str:
        return "".join("" if n < len(SPECIALS) else self.texts.get(n, "") for n in ids)

    def show(self, ids: Iterable[int]) -> str:
        """Every token by its spelling, special ones too; an id that no word has come to says nothing."""
        return "".join(self.texts.get(n, "") for n in ids)

    def stream(self, continued: bool = False) -> "FakeStream":
        return FakeStream(self)


class FakeStream:
    """Tokens are whole characters here: nothing is ever held back."""

    def __init__(self, tokenizer: FakeTokenizer):
        self._tokenizer = tokenizer

    def push(self, token: int) -> str:
        return self._tokenizer.decode([token])

    def flush(self) -> str:
        return ""
