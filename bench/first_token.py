"""One start, as `start` times it: what `townhall chat --prompt` does, no more. Prints seconds since it began, by phase."""

import os
import time

STARTED = float(os.environ.get("TOWNHALL_STARTED", time.monotonic()))
MARKS: dict[str, float] = {}


def mark(phase: str) -> None:
    MARKS[phase] = round(time.monotonic() - STARTED, 4)


mark("interpreter")


def ours(model: str, tokens: int, kv: str, adapters: list[str]) -> None:
    from app.models.llama import Llama, SamplingParams
    from bench.worker import adapters_of
    from ext.tinygrad.backend import open_backend

    mark("imports")
    open_backend()
    mark("device")
    llama = Llama.load(model, adapters=adapters_of(adapters), kv=kv)
    mark("weights and tokenizer")
    ids = llama.tokenizer.encode(" ".join(["town hall"] * tokens))[:tokens]
    next(llama.generate(ids, 1, SamplingParams(temperature=0)))
    mark("first token")


def theirs(model: str, tokens: int, kv: str, adapters: list[str]) -> None:
    from llama_cpp import llama_cpp

    quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(quiet, None)
    llama_cpp.llama_backend_init()
    mark("imports")
    weights = llama_cpp.llama_model_load_from_file(model.encode(), llama_cpp.llama_model_default_params())
    parameters = llama_cpp.llama_context_default_params()
    parameters.n_ctx = 1024
    parameters.n_threads = parameters.n_threads_batch = int(os.environ.get("THREADS") or len(os.sched_getaffinity(0)))
    if kv == "q8_0":
        parameters.type_k = parameters.type_v = llama_cpp.GGML_TYPE_Q8_0
    context = llama_cpp.llama_init_from_model(weights, parameters)
    mark("weights and tokenizer")
    vocabulary, text = llama_cpp.llama_model_get_vocab(weights), (" ".join(["town hall"] * tokens)).encode()
    ids = (llama_cpp.llama_token * (len(text) + 8))()
    llama_cpp.llama_tokenize(vocabulary, text, len(text), ids, len(ids), True, True)
    if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(ids, tokens)):
        raise SystemExit("llama_decode failed")
    logits = llama_cpp.llama_get_logits_ith(context, -1)
    n = llama_cpp.llama_vocab_n_tokens(vocabulary)
    _argmax(logits, n)
    mark("first token")


def _argmax(logits: object, n: int) -> int:
    import numpy as np

    return int(np.ctypeslib.as_array(logits, shape=(n,)).argmax())


if __name__ == "__main__":
    import json
    import sys

    subject, model, kv = sys.argv[1:4]
    (ours if subject == "townhall" else theirs)(model, int(os.environ.get("PROMPT_TOKENS", "30")), kv, sys.argv[4:])
    print("\n" + json.dumps(MARKS), flush=True)
    if subject == "townhall":
        from app.models.llama.weight_cache import settle

        settle()  # later starts find what this one packed
    os._exit(0)  # how long a library takes to say goodbye is not the question
