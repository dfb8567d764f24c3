"""The samplers in requests, as clients of llama.cpp's server, koboldcpp and text-generation-webui name them."""

from typing import Any

import httpx
import pytest

from app.models.llama.logits_processors import LogitsProcessors, SamplerChain
from app.models.llama.sampling_params import SamplingParams
from app.sampler_settings import BREAKERS
from tests.townhall.fake import FakeLlama
from tests.townhall.server.running import ask
from townhall.server.requests import ChatRequest, CompletionRequest

pytestmark = pytest.mark.slow

NAMES = {  # what is sent: the setting, and what it comes to
    ("dry_multiplier", 0.8): ("dry_multiplier", 0.8),
    ("dry_base", 2): ("dry_base", 2.0),
    ("dry_allowed_length", 3.0): ("dry_allowed_length", 3),
    ("dry_penalty_last_n", 100): ("dry_penalty_last_n", 100),
    ("xtc_probability", 0.5): ("xtc_probability", 0.5),
    ("xtc_threshold", 0.2): ("xtc_threshold", 0.2),
    ("typical_p", 0.9): ("typical_p", 0.9),
    ("typical", 0.8): ("typical_p", 0.8),
    ("typ_p", 0): ("typical_p", 1e-6),
    ("mirostat", 2): ("mirostat", 2),
    ("mirostat_mode", 1): ("mirostat", 1),
    ("mirostat_tau", 4): ("mirostat_tau", 4.0),
    ("mirostat_eta", 0.2): ("mirostat_eta", 0.2),
    ("dynatemp_range", 0.3): ("dynatemp_range", 0.3),
    ("dynatemp_exponent", 2): ("dynatemp_exponent", 2.0),
    ("nsigma", 1.5): ("top_n_sigma", 1.5),
    ("rep_pen", 1.2): ("repeat_penalty", 1.2),
    ("repeat_last_n", -1): ("repeat_last_n", -1),
    ("rep_pen_range", 20): ("repeat_last_n", 20),
    ("repetition_penalty_range", 30): ("repeat_last_n", 30),
}
LISTS = {  # as llama.cpp's server, text-generation-webui and SillyTavern have them
    "a list": ["\n", "User:"],
    "a list with an empty text": ["\n", "", "User:"],
    "JSON": '["\\n", "User:"]',
    "JSON without brackets": '"\\n", "User:"',
}


class Watched(FakeLlama):
    """Keeps what draws."""

    def __init__(self) -> None:
        super().__init__()
        self.draws: list[SamplerChain] = []

    def generate(self, ids: list[int], max_tokens: int, sampling: Any = None, *args: Any, **rest: Any) -> Any:
        self.draws.append(sampling)
        return super().generate(ids, max_tokens, sampling, *args, **rest)


@pytest.fixture
def drawn(serve):
    """drawn(**fields): how a request with them is drawn."""
    llama = Watched()
    server = serve(llama)

    def request(**fields: Any) -> tuple[SamplingParams, LogitsProcessors, SamplerChain]:
        response = ask(server, **fields)
        assert response.status_code == 200, response.text
        chain = llama.draws[-1]
        return chain._sampler.sampling, chain._logits_processors, chain

    return request


def test_every_name_that_clients_know_reaches_the_sampler(drawn):
    for (name, value), (setting, expected) in NAMES.items():
        found = getattr(drawn(**{name: value})[0], setting)
        assert found == expected and type(found) is type(expected), name


@pytest.mark.parametrize("form", LISTS)
def test_sequence_breakers_are_a_list_or_a_text_that_is_one(drawn, form):
    sampling, _, chain = drawn(dry_multiplier=1, dry_sequence_breakers=LISTS[form])
    assert sampling.dry_sequence_breakers == ("\n", "User:")
    assert chain._sampler._chain and chain._sampler._chain._dry
    assert drawn(dry_sequence_breakers=None)[0].dry_sequence_breakers == BREAKERS
    assert drawn(dry_sequence_breakers=[])[0].dry_sequence_breakers == ()


def test_penalties_are_openais_unless_a_range_is_named(drawn):
    fields = {"frequency_penalty": 0.5, "presence_penalty": -0.25}
    sampling, processors, _ = drawn(**fields)
    assert (sampling.frequency_penalty, sampling.presence_penalty) == (0.0, 0.0)
    assert processors == LogitsProcessors({}, 0.5, -0.25)
    sampling, processors, _ = drawn(**fields, repeat_last_n=32)
    assert (sampling.frequency_penalty, sampling.presence_penalty, sampling.repeat_last_n) == (0.5, -0.25, 32)
    assert processors == LogitsProcessors()


def test_what_sillytavern_sends_where_all_is_off_changes_nothing(drawn):
    off = {
        "temperature": 0.3, "top_k": 40, "top_p": 0.95, "min_p": 0, "typical_p": 1, "typical": 1, "tfs": 1, "top_a": 0, "nsigma": 0,
        "rep_pen": 1.1, "repetition_penalty": 1.1, "repeat_penalty": 1.1, "frequency_penalty": 0, "presence_penalty": 0,
        "mirostat": 0, "mirostat_mode": 0, "mirostat_tau": 5, "mirostat_eta": 0.1, "dynatemp_range": None, "xtc_probability": 0,
        "xtc_threshold": 0.1, "dry_multiplier": 0, "dry_base": 1.75, "dry_allowed_length": 2, "dry_penalty_last_n": 0,
        "reply_ngram_penalty": 0, "dry_sequence_breakers": '["\\n", ":", "\\"", "*"]', "rep_pen_range": 64,
        "repeat_last_n": 64, "smoothing_factor": 0,
    }  # fmt: skip
    sampling, processors, chain = drawn(**off)
    assert sampling == SamplingParams(temperature=0.3, repeat_penalty=1.1, dry_penalty_last_n=0, seed=sampling.seed)
    assert processors == LogitsProcessors() and chain._sampler._chain is None


@pytest.mark.parametrize(
    "field, value",
    [
        ("dry_multiplier", -1),
        ("dry_base", 0.5),
        ("dry_allowed_length", 1.5),
        ("dry_penalty_last_n", -2),
        ("dry_sequence_breakers", [1]),
        ("dry_sequence_breakers", "no list"),
        ("dry_sequence_breakers", "[" * 50_000),
        ("dry_sequence_breakers", ["x" * 101]),
        ("dry_sequence_breakers", ["x"] * 65),
        ("dry_sequence_breakers", {"a": 1}),
        ("xtc_probability", 1.5),
        ("typical_p", "much"),
        ("mirostat", 3),
        ("mirostat_eta", -0.1),
        ("dynatemp_range", -1),
        ("repeat_last_n", -5),
        ("frequency_penalty", 9),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(serve, field, value):
    refused = ask(serve(), **{field: value})
    assert refused.status_code == 400 and field in refused.text, refused.text
    assert "\n" not in refused.json()["error"]["message"]


def test_the_fields_are_described(serve):
    for kind in (ChatRequest, CompletionRequest):
        described = kind.model_json_schema()["properties"]
        assert described["mirostat"]["anyOf"][0] == {"type": "integer", "minimum": 0, "maximum": 2}
        assert described["dry_sequence_breakers"]["anyOf"][0]["type"] == "array"


@pytest.mark.parametrize(
    "fields",
    [
        {"dry_multiplier": 5, "dry_allowed_length": 0, "dry_sequence_breakers": [], "temperature": 1.0},
        {"xtc_probability": 0.5, "xtc_threshold": 0.01, "temperature": 1.0},
        {"typical_p": 0.5, "temperature": 1.0, "dynatemp_range": 0.5},
        {"mirostat": 2, "mirostat_tau": 3.0, "temperature": 1.0},
        {"mirostat": 1, "mirostat_tau": 3.0, "temperature": 1.0},
        {"frequency_penalty": 0.4, "presence_penalty": 0.4, "repeat_last_n": -1},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_seed_repeats_an_answer_and_the_sampler_changes_it(tiny_server, fields):
    def answer(**more: Any) -> list[str]:
        asked = {"prompt": list(range(5, 30)), "max_tokens": 40, "seed": 4, "logprobs": 0, "top_k": 0, "top_p": 1} | more
        return httpx.post(f"{tiny_server.url}/completions", json=asked, timeout=60).json()["choices"][0]["logprobs"]["tokens"]

    assert answer(**fields) == answer(**fields) != answer(temperature=fields.get("temperature", 0.3))
