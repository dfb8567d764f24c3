"""The default model, served as a user serves it."""

import openai
import pytest

from tests.townhall.server.running import OPTIONS, Opened, Running
from townhall.conversation import default_sampling

QUESTIONS = [
    "When was the French Revolution?",
    "Which is bigger, the moon or the sun?",
    "Why is the sky blue?",
    "Name three colours.",
    "Thank you!",
]


@pytest.mark.weights
def test_five_turns_with_stacy_each_cost_their_own_tokens(default_model):
    def load():
        from app.models.llama import Llama

        llama = Llama.load(default_model)
        return Opened(llama, default_sampling(), llama.backend)

    server = Running(load, OPTIONS)
    try:
        chat_state = openai.OpenAI(base_url=server.url, api_key="any", max_retries=0, timeout=120)
        messages = []
        for question in QUESTIONS:
            messages.append({"role": "user", "content": question})
            reply = chat_state.chat.completions.create(model="stacy", messages=messages, temperature=0, max_tokens=40)
            answer, usage = reply.choices[0].message.content, reply.usage
            own = len(server.service.llama.tokenizer.encode(question, bos=False))
            # beside its words a turn has the markers around it, and what closed the last answer
            assert usage.prompt_tokens - usage.prompt_tokens_details.cached_tokens <= own + 16
            assert answer and answer == answer.strip()
            messages.append({"role": "assistant", "content": answer})
    finally:
        server.stop()
