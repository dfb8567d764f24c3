"""`townhall inspect`: what it says of each format, and how it names what is wrong."""

import hashlib
import json
from pathlib import Path

import pytest

from tests.reference.tiny import make_tiny_gguf
from tests.reference.tiny_formats import tiny_weights, write_hf, write_meta
from tests.reference.words import TOKENS
from townhall.cli.main import main


def report(path: Path, capsys: pytest.CaptureFixture[str], *flags: str) -> dict:
    assert main(["inspect", str(path), "--json", *flags]) == 0
    result: dict = json.loads(capsys.readouterr().out)
    return result


def test_it_counts_what_the_file_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_tiny_gguf(tmp_path / "tiny.gguf", type="Q8_0", overrides={"general.license": "apache-2.0"})
    found = report(path, capsys)
    weights = tiny_weights()
    assert found["parameters"] == sum(values.size for values in weights.values())
    assert found["types"]["Q8_0"]["tensors"] == 16 and found["types"]["F32"]["tensors"] == 5
    assert found["types"]["Q8_0"]["bytes"] == found["types"]["Q8_0"]["parameters"] // 32 * 34
    assert found["licence"] == "apache-2.0" and found["context_length"] == 256
    assert found["memory"]["cache_per_token"] == 2 * 2 * 2 * 16 * 2  # keys and values, layers, heads, head_dim, bytes
    assert found["vocabulary"]["chat_template"].startswith("{% for message")
    assert found["files"] == [{"name": "tiny.gguf", "bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}]


def test_it_says_where_sources_disagree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_hf(tmp_path / "hf", tiny_weights(vocab_size=len(TOKENS) + 3), eos_token_id=7, shards=2)
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": len(TOKENS)}))
    (folder / "README.md").write_text("---\nlicense: llama2\n---\n# A model")
    found = report(folder, capsys, "--quick")
    vocabulary = found["vocabulary"]
    assert (vocabulary["tokens"], vocabulary["embedding_rows"], vocabulary["output_rows"]) == (353, 355, 355)
    assert vocabulary["added_tokens"]["352"] == "[PAD]"
    assert vocabulary["sources"]["config.json"]["eos"] == {"7": TOKENS[7]}
    assert vocabulary["sources"]["generation_config.json"]["eos"] == {"2": "<|im_end|>", "0": "<|endoftext|>"}
    assert any(line.startswith("eos: config.json 7") for line in vocabulary["disagreements"])
    assert any("2 rows of the embedding have no token" in line for line in vocabulary["disagreements"])
    assert set(vocabulary["stop"]) == {"0", "2", "7"}
    assert found["licence"] == "llama2" and found["format"] == "Hugging Face, safetensors" and len(found["files"]) == 2
    assert "sha256" not in found["files"][0]


def test_a_tokenizer_too_large_to_load_can_still_be_looked_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_hf(tmp_path / "hf", tiny_weights())
    (folder / "added_tokens.json").write_text(json.dumps({"[PAD]": len(TOKENS)}))
    assert "1 tokens have no row in the embedding; this cannot be loaded" in report(folder, capsys)["vocabulary"]["disagreements"]


def test_a_person_reads_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(write_meta(tmp_path / "meta", tiny_weights(), shards=2))]) == 0
    out = capsys.readouterr().out
    for words in ("Meta's original", "2 layers, dim 64", "byte-level BPE, 352 tokens", "not declared"):
        assert words in out
    assert len([line for line in out.splitlines() if line.startswith("SHA-256")]) == 2


def test_what_is_no_checkpoint_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    assert main(["inspect", str(tmp_path / "notes.txt")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
