"""What llama.cpp makes of hard texts: writes tests/data/tokenizer_ids.json, so that the suite can compare ids without llama.cpp.

    python -m bench.reference_ids --model app/models/llama/weights/SmolLM2-135M-Instruct.Q4_1.gguf

Needs the extra `bench` (llama-cpp-python).
"""

import argparse
import json
from pathlib import Path
from typing import Any

TEXTS = [
    "",
    " ",
    "   a   ",
    "a b  c   d",
    "\n",
    "\n\n\n x",
    "\t\tif x:\r\n  y\r\n\r\n",
    "Hello, world!",
    "12345 6 7890, 3.14159 and x1y2",
    "½ ² Ⅷ ① ٣٤٥ १२३ １２３",
    "it's I'm we'll THEY'RE don'T 'tis 's",
    "héllo wörld, naïve café, cafe\u0301",
    "日本語のテキスト、漢字とかな。",
    "안녕하세요 세계",
    "Привет, мир!",
    "مرحبا بالعالم",
    "नमस्ते दुनिया",
    "👩‍👩‍👧‍👦 🎉🏳️‍🌈 😀😀",
    "a\u00a0b\u2003c\u3000d\u200be\u2028f",
    "\x00\x01\x7f\ufeff",
    "def f(x):\n    return x**2  # comment\n",
    "http://example.com/a?b=c&d=e#f",
    "$$$ %%% ((( ))) --- ...",
    "… — “quotes” ‘single’",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "<|im_start|>user\nWho are you?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_end|><|im_end|> <|endoftext|>x",
    "<|im_en <|im_end| > |im_end|>",
    "User: hi\nStacy: hello [EOS]\n",
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "tests/data/tokenizer_ids.json")
    options = parser.parse_args()
    import llama_cpp

    model = llama_cpp.Llama(str(options.model), vocab_only=True, verbose=False)

    def ids(text: str, special: bool) -> list[int]:
        found: list[int] = model.tokenize(text.encode(), add_bos=True, special=special)
        return found

    cases: list[dict[str, Any]] = [{"text": text, "special": ids(text, True), "plain": ids(text, False)} for text in TEXTS]
    lines = ",\n".join(json.dumps(case, ensure_ascii=True, separators=(",", ":")) for case in cases)
    options.out.write_text(f'{{"model":"{options.model.name}","llama_cpp_python":"{llama_cpp.__version__}","cases":[\n{lines}\n]}}\n')
    print(f"{options.out}: {len(cases)} texts")


if __name__ == "__main__":
    main()
