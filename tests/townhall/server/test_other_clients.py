"""Clients that are too large for every run: `pip install '.[clients]'` brings them, and without them these tests are skipped."""

import pytest

from tests.townhall.fake import FakeLlama
from tests.townhall.server.test_tools import CALL

pytestmark = pytest.mark.slow


def script(prompt):
    """Calls once, then answers with what came of it."""
    return "It is rain in Paris." if "<tool_response>" in prompt.rpartition("<|im_end|>")[0] else CALL


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

    assert agent.run_sync("How is it in Paris?").output == "It is rain in Paris." and asked == ["Paris"]
