"""The tiny model's vocabulary: ChatML's special tokens, the 256 bytes, and merges for a few common words."""

SPECIAL_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
WORDS = (
    "the of and to in is was you that it he for on are with as his they at be this from have or by one had not but what all were "
    "we when your can said there use an each which she do how their if will up other about out many then them these so some her"
).split()
SIZE = 352  # tokens in all: a multiple of 32, as kernels like it


def byte_characters() -> list[str]:
    """GPT-2's printable character for each of the 256 bytes, in byte order."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(spare)) for byte in range(256)]


def word_merges(words: list[str]) -> list[tuple[str, str]]:
    """Merges that build " word" from left to right, each once."""
    merges: dict[tuple[str, str], None] = {}
    for word in words:
        piece = byte_characters()[ord(" ")]
        for char in word:
            merges.setdefault((piece, char))
            piece += char
    return list(merges)


PAIRS = word_merges(WORDS)[: SIZE - len(SPECIAL_TOKENS) - 256]
MERGES = [" ".join(pair) for pair in PAIRS]
TOKENS = [*SPECIAL_TOKENS, *byte_characters(), *("".join(pair) for pair in PAIRS)]
