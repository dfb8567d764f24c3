"""Clients that are too large for every run, or that ask for another openai than the other tests; where one is missing its test is skipped.

They passed with litellm 1.110.2, instructor 1.17.0 and llm 0.36, each beside openai 3.3.0, and openai 6.49.0 of npm.
"""

import json
import os
import shutil
import subprocess
import sys
from typing import Annotated

import openai
import pytest
from pydantic import BaseModel, Field

from tests.townhall.fake import FakeLlama
from tests.townhall.server.test_tools import CALL, TOOLS

pytestmark = pytest.mark.slow
ANSWER = "It is rain in Paris."
QUESTION = [{"role": "user", "content": "How is it in Paris?"}]


def script(prompt):
    """Calls once, then answers with what came of it."""
    return ANSWER if "<tool_response>" in prompt.rpartition("<|im_end|>")[0] else CALL


class Box(BaseModel):
    """A box."""

    label: Annotated[str, Field(max_length=8)]
    items: Annotated[int, Field(ge=0, le=9)]


def test_an_agent_of_pydantic_ai(serve):
    pydantic_ai = pytest.importorskip("pydantic_ai")
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    server, asked = serve(FakeLlama(script)), []
    agent = pydantic_ai.Agent(OpenAIChatModel("double", provider=OpenAIProvider(base_url=server.url, api_key="any")))

    @agent.tool_plain
    def get_weather(city: str) -> str:
        """How the weather is in a city."""
        asked.append(city)
        return f"rain in {city}"

    assert agent.run_sync("How is it in Paris?").output == ANSWER and asked == ["Paris"]


@pytest.fixture
def litellm(monkeypatch):
    """Without its list of prices, which it would fetch when it is imported."""
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return pytest.importorskip("litellm")


@pytest.mark.parametrize("provider", ["openai", "ollama_chat"])
@pytest.mark.parametrize("streamed", [False, True])
def test_litellm(serve, litellm, provider, streamed):
    server = serve(FakeLlama(["Paris is big."]))
    where = {"model": f"{provider}/double", "api_base": server.url if provider == "openai" else server.root, "api_key": "any"}
    reply = litellm.completion(messages=QUESTION, stream=streamed, **where)
    reply = litellm.stream_chunk_builder(list(reply), messages=QUESTION) if streamed else reply
    assert reply.choices[0].message.content == "Paris is big." and reply.choices[0].finish_reason == "stop"
    server = serve(FakeLlama(script))
    where["api_base"] = server.url if provider == "openai" else server.root
    messages = list(QUESTION)
    reply = litellm.completion(messages=messages, tools=TOOLS, stream=streamed, **where)
    reply = litellm.stream_chunk_builder(list(reply), messages=messages) if streamed else reply
    (call,) = reply.choices[0].message.tool_calls
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Paris"}
    assert reply.choices[0].finish_reason == "tool_calls"
    messages += [reply.choices[0].message.model_dump(), {"role": "tool", "tool_call_id": call.id, "name": "get_weather", "content": "rain"}]
    assert litellm.completion(messages=messages, tools=TOOLS, **where).choices[0].message.content == ANSWER


def test_litellm_names_a_full_window(serve, litellm):
    server = serve(FakeLlama(max_context=400))
    messages = [{"role": ("user", "assistant")[n % 2], "content": f"message {n}"} for n in range(81)]
    with pytest.raises(litellm.ContextWindowExceededError):
        litellm.completion("openai/double", messages, api_base=server.url, api_key="any", extra_body={"context": "stop"})


@pytest.mark.parametrize("mode", ["TOOLS", "TOOLS_STRICT", "MD_JSON"])
def test_instructor(serve, tiny_server, mode):
    instructor = pytest.importorskip("instructor")
    # calls are held to their schema whatever a random model would like; the other mode asks for JSON in words
    held = mode.startswith("TOOLS")
    server = tiny_server if held else serve(FakeLlama(['{"label": "a box", "items": 3}']))
    client = openai.OpenAI(base_url=server.url, api_key="any", max_retries=0)
    create = instructor.from_openai(client, mode=instructor.Mode[mode]).chat.completions.create
    model = "tiny" if held else "double"
    made = create(model=model, response_model=Box, messages=QUESTION, max_retries=0, temperature=1.0, seed=3)
    assert isinstance(made, Box) and (held or made.model_dump() == {"label": "a box", "items": 3})


def test_llm_of_simon_willison(serve, tmp_path):
    pytest.importorskip("llm")
    server = serve(FakeLlama(script))
    models = f"- model_id: here\n  model_name: double\n  api_base: {server.url}\n  supports_tools: true\n  can_stream: true\n"
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    environment = {**os.environ, "LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "any"}

    def llm(*words):
        command = [sys.executable, "-m", "llm", "-m", "here", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=200, env=environment, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, done.stderr
        return done.stdout

    functions = 'def get_weather(city: str) -> str:\n    "How the weather is."\n    return "rain in " + city\n'
    for extra in ([], ["--no-stream"]):
        assert ANSWER in llm("How is it in Paris?", "--functions", functions, *extra)
    server.service.opened.llama.answers = ["Paris is big."]
    assert llm("What is big?").strip() == "Paris is big."
    assert llm("And else?", "-c", "--no-stream").strip() == "Paris is big."
    assert "What is big?" in server.service.llama.tokenizer.show(server.service.llama.prompts[-1])  # it goes on


NODE = """
const OpenAI = require("openai").default;
const client = new OpenAI({ baseURL: process.argv[1], apiKey: "any", maxRetries: 0 });
const asked = [];
function get_weather({ city }) { asked.push(city); return "rain in " + city; }
const tools = [{ type: "function", function: { name: "get_weather", function: get_weather, parse: JSON.parse, description: "Weather",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } } }];
const messages = [{ role: "user", content: "How is it in Paris?" }];
(async () => {
  const out = {};
  for (const stream of [false, true]) {
    const runner = client.chat.completions.runTools({ model: "double", messages, tools, stream });
    out["tools" + stream] = await runner.finalContent();
  }
  const plain = { model: "double", messages: [{ role: "user", content: "plain" }] };
  out.whole = (await client.chat.completions.create(plain)).choices[0].message.content;
  out.stream = "";
  const stream = await client.chat.completions.create({ ...plain, stream: true });
  for await (const chunk of stream) out.stream += chunk.choices[0]?.delta?.content ?? "";
  out.response = (await client.responses.create({ model: "double", input: "plain" })).output_text;
  out.models = []; for await (const model of client.models.list()) out.models.push(model.id);
  const refused = client.chat.completions.create({ ...plain, top_p: 7 });
  try { await refused; } catch (error) { out.error = [error.constructor.name, error.status]; }
  console.log(JSON.stringify({ ...out, asked }));
})();
"""


def test_openai_of_npm(serve):
    node = shutil.which("node")
    if node is None or subprocess.run([node, "-e", "require.resolve('openai')"], capture_output=True).returncode:
        pytest.skip("needs node, and openai of npm where NODE_PATH or a node_modules folder above has it")
    server = serve(FakeLlama(lambda prompt: "Paris is big." if "plain" in prompt else script(prompt)))
    done = subprocess.run([node, "-e", NODE, server.url], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    out = json.loads(done.stdout)
    assert out.pop("models")[-1] == "double" and out.pop("error") == ["BadRequestError", 400] and out.pop("asked") == ["Paris", "Paris"]
    answers = {"toolsfalse": ANSWER, "toolstrue": ANSWER}
    assert out == answers | dict.fromkeys(("whole", "stream", "response"), "Paris is big.")
