"""Tools on a served model: which of five it calls for plain requests, and whether its arguments follow schemas that were made up.

    python -m bench.tools [--model PATH] [--schemas N] [--served N] [--seed N] [--json FILE]

Forty requests, eight for each of five functions, at temperature 0: with `auto` the model may answer with words instead, with `required` it
has to call one, with a named function it has to call that. Then functions with random parameters are called by name: `--schemas` of them
with tokens drawn evenly from all that the grammar allows, which is the worst of models, and `--served` of them by the model at temperature
1. jsonschema-rs, which is not ours, says what is malformed; so are calls that `max_tokens` cut off.
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings

from app.models.llama.checkpoint import open_checkpoint
from bench.served import Served, townhall
from tests.townhall.server.random_schemas import malformed, objects
from townhall.cli.chat_options import ChatOptions
from townhall.formats.call_syntax import GENERAL
from townhall.server.errors import APIError
from townhall.server.grammar import Grammars
from townhall.server.tool_requests import FunctionDefinition
from townhall.server.tools import CallReading

AT_ONCE = 4
MOST_TOKENS, MOST_WALKED = 1200, 3000
TEXT: dict[str, Any] = {"type": "string", "maxLength": 60}


def function(name: str, description: str, **properties: Any) -> dict[str, Any]:
    """As `tools` has it."""
    parameters = {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS = [
    function("get_weather", "Get the current weather in a city.", city=TEXT),
    function("send_email", "Send an email to a person.", to=TEXT, text=TEXT),
    function("calculate", "Calculate the value of an arithmetic expression.", expression=TEXT),
    function("set_timer", "Set a timer that rings after some minutes.", minutes={"type": "integer", "minimum": 1, "maximum": 999}),
    function("play_music", "Play a song or an artist.", title=TEXT),
]
REQUESTS = {
    "get_weather": [
        "What is the weather in Paris?",
        "Is it raining in London right now?",
        "How warm is it in Rome today?",
        "Tell me the weather in Tokyo.",
        "Do I need an umbrella in Berlin?",
        "Is it snowing in Oslo?",
        "What are the temperatures in Cairo?",
        "How is the weather in New York?",
    ],
    "send_email": [
        "Send an email to Anna that I am late.",
        "Email Bob that the meeting is at nine.",
        "Write an email to my mother and wish her a happy birthday.",
        "Please mail Peter the word yes.",
        "Send Mary an email saying thank you.",
        "Let Tom know by email that dinner is ready.",
        "Email the team that the server is down.",
        "Send an email to Lisa and ask for the report.",
    ],
    "calculate": [
        "What is 12 times 7?",
        "Calculate 144 divided by 12.",
        "How much is 3.5 plus 4.25?",
        "What is 2 to the power of 10?",
        "Add 17 and 28.",
        "What is 15 percent of 80?",
        "Subtract 19 from 100.",
        "Compute (3 + 4) * 5.",
    ],
    "set_timer": [
        "Set a timer for 5 minutes.",
        "Wake me in 20 minutes.",
        "Remind me in 10 minutes.",
        "Start a timer of three minutes for the tea.",
        "Timer for 45 minutes, please.",
        "Let it ring in one minute.",
        "I need a timer for half an hour.",
        "Set the timer to 12 minutes.",
    ],
    "play_music": [
        "Play some music by the Beatles.",
        "Play Bohemian Rhapsody.",
        "I want to listen to Mozart.",
        "Put on a song by Adele.",
        "Play the song Yesterday.",
        "Start playing jazz.",
        "Can you play Hotel California?",
        "Play something by Bach.",
    ],
}


def ask(served: Served, text: str, tools: list[dict[str, Any]], choice: Any, **fields: Any) -> dict[str, Any]:
    """The choice of one answer; what the server refuses is one with an `error`."""
    body = {"model": served.model, "messages": [{"role": "user", "content": text}], "tools": tools, "tool_choice": choice, **fields}
    reply = httpx.post(f"{served.url}/chat/completions", json=body, timeout=600)
    if reply.status_code != 200:
        return {"error": reply.json()["error"]["message"], "message": {}, "finish_reason": None}
    found: dict[str, Any] = reply.json()["choices"][0]
    return found


def faults(choice: dict[str, Any], tools: list[dict[str, Any]]) -> list[str]:
    """What is malformed in an answer's calls."""
    schemas = {tool["function"]["name"]: tool["function"]["parameters"] for tool in tools}
    found = [choice["error"]] if "error" in choice else []
    found += ["cut off"] if choice["finish_reason"] == "length" else []
    for call in choice["message"].get("tool_calls") or []:
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        fault = malformed(arguments, schemas[name]) if name in schemas else f"there is no {name}"
        found += [fault] if fault else []
    return found


def selection(served: Served) -> dict[str, dict[str, int]]:
    """Of the forty requests, by choice: how many were answered with a call, with the right one first, and with one that is malformed."""
    asked = [(name, text) for name, texts in REQUESTS.items() for text in texts]
    results = {}
    for way in ("auto", "required", "named"):

        def one(request: tuple[str, str], way: str = way) -> tuple[str, dict[str, Any]]:
            name, text = request
            choice = {"type": "function", "function": {"name": name}} if way == "named" else way
            return name, ask(served, text, TOOLS, choice, temperature=0, max_tokens=100, parallel_tool_calls=False)

        with ThreadPoolExecutor(AT_ONCE) as pool:
            answers = list(pool.map(one, asked))
        first = [(name, (answer["message"].get("tool_calls") or [None])[0]) for name, answer in answers]
        results[way] = {
            "requests": len(answers),
            "calls": sum(call is not None for _, call in first),
            "right": sum(call is not None and call["function"]["name"] == name for name, call in first),
            "malformed": sum(bool(faults(answer, TOOLS)) for _, answer in answers if answer["message"].get("tool_calls")),
        }
        print(f"{way:10}" + "  ".join(f"{key} {value}" for key, value in results[way].items()), file=sys.stderr)
    return results


def made_up(count: int) -> list[dict[str, Any]]:
    """Schemas, the same at every run."""
    schemas: list[dict[str, Any]] = []

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(schema=objects())
    def collect(schema: dict[str, Any]) -> None:
        schemas.append(schema)

    collect()
    return schemas[:count]


def walks(model: Path, schemas: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Calls made of tokens that are drawn evenly from those which the grammar allows."""
    tokenizer = open_checkpoint(model).tokenizer()
    grammars, random, found, ended = Grammars(tokenizer), np.random.default_rng(seed), list[str](), list[str]()
    for schema in schemas:
        made = FunctionDefinition(name="made", parameters=schema, strict=True)
        grammar, ids = grammars.of_calls(GENERAL, [made], parallel=False)(), list[int]()
        try:
            while not (allowed := grammar.allowed())[list(tokenizer.stop_ids)].any() and len(ids) < MOST_WALKED:
                ids.append(int(random.choice(np.flatnonzero(allowed))))
                grammar.take(ids[-1])
        except APIError as error:  # the server would end the request with it
            ended.append(error.message)
            continue
        parser = CallReading(GENERAL, ["made"]).reader()
        parser.push(tokenizer.decode(ids)), parser.flush()
        faults = [malformed(call.arguments, schema) for call in parser.calls] if len(parser.calls) == 1 else [f"{len(parser.calls)} calls"]
        found += [fault for fault in faults if fault]
    return {"schemas": len(schemas), "malformed": len(found), "ended": len(ended), "faults": sorted({*found, *ended})}


def random_calls(served: Served, schemas: list[dict[str, Any]], seed: int) -> dict[str, Any]:
    """Functions with random parameters, called by name at temperature 1."""
    found: dict[str, int] = {}

    def one(numbered: tuple[int, dict[str, Any]]) -> list[str]:
        at, schema = numbered
        tool = {"type": "function", "function": {"name": "made", "description": "A function.", "parameters": schema, "strict": True}}
        named = {"type": "function", "function": {"name": "made"}}
        choice = ask(served, "Call the function.", [tool], named, temperature=1.0, seed=seed + at, max_tokens=MOST_TOKENS)
        called = len(choice["message"].get("tool_calls") or [])
        return faults(choice, [tool]) + ([] if called == 1 or "error" in choice else [f"{called} calls"])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for said in pool.map(one, enumerate(schemas)):
            for fault in said:
                found[fault] = found.get(fault, 0) + 1
    return {"schemas": len(schemas), "malformed": sum(found.values()), "faults": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, help="model file  [default: the one that pull_llama.sh fetches]")
    parser.add_argument("--schemas", type=int, default=1000)
    parser.add_argument("--served", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="a file for the figures")
    options = parser.parse_args()
    model = ChatOptions(model=options.model).model_path()
    results: dict[str, Any] = {"model": model.name, "walks": walks(model, made_up(options.schemas), options.seed)}
    print(f"walks     {results['walks']}", file=sys.stderr)
    with townhall(model, ["--max-context", "2048", "--max-tokens", "600"], bare=True) as served:
        results["selection"] = selection(served)
        results["served"] = random_calls(served, made_up(options.served), options.seed)
    print(json.dumps(results, indent=2))
    if options.json:
        options.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
