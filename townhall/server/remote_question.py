"""From a planned prompt to what another server's model is asked, and what only the local model can do."""

from collections.abc import Sequence
from dataclasses import replace

from townhall.persona import Persona
from townhall.prompt import Prompt
from townhall.server.errors import APIError
from townhall.server.job import AnswerRequest
from townhall.server.planned_request import PlannedRequest
from townhall.server.requests import ChatRequest
from townhall.server.served_models import ServedModel
from townhall.server.tool_requests import ToolUse
from townhall.transcript import PromptPlan
from townhall.via.answering import AnswerQuestion, as_messages, begun, left_out
from townhall.via.endpoint import RemoteEndpoint


def refuse_unsent(request: ChatRequest, use: ToolUse | None) -> None:
    """APIError 400 for what is made of the local model's logits or weights, and for calls of functions."""
    for name, wanted in (
        ("tools", use is not None),
        ("messages", any(message.calls or message.role in ("tool", "function") for message in request.messages)),
        ("response_format", request.shape is not None),
        ("logprobs", bool(request.logprobs)),
        ("logit_bias", bool(request.logit_bias)),
        ("lora", bool(request.lora)),
    ):
        if wanted:
            what = "calls of functions" if name == "messages" else name
            fault = (
                f"{name}: another server's model answers here, to which {what} cannot be handed on; leave that out, or ask the local model"
            )
            raise APIError(400, fault, name, "unsupported_parameter")


def with_question(
    planned: PlannedRequest,
    via: RemoteEndpoint | None,
    served_model: ServedModel,
    prompt: Prompt,
    persona: Persona,
    plan: PromptPlan,
    begun: str,
    stop: Sequence[str],
) -> PlannedRequest:
    """With the notes of the memory, and, where another server's model answers, with what that is asked. `begun`: how the answer begins."""
    notes = [note.text for note in plan.memory.notes] if plan.memory else []
    if via is None or not served_model.elsewhere:
        return replace(planned, notes=notes)
    own = () if served_model.bare else (f"\n{persona.user}:", *persona.stop)
    question = question_of(prompt, persona, plan, planned.runs[0], begun.strip(), (*stop, *own))
    return replace(planned, elsewhere=question, place=via.place, notes=notes)


def question_of(
    prompt: Prompt, persona: Persona, plan: PromptPlan, run: AnswerRequest, carried: str, stop: Sequence[str]
) -> AnswerQuestion:
    """The same that the prompt of `run` says. `carried` is the text of an answer that is carried on."""
    assert plan.turn
    opening = plan.gathered.opening if plan.begun else ""
    messages = begun(as_messages(prompt, persona, plan.window, plan.turn, plan.gathered.texts), opening, carried)
    sent = len(plan.ids)
    whole = sent + left_out(plan.window, plan.exchanges)
    return AnswerQuestion(messages, run.max_tokens, run.sampling, tuple(dict.fromkeys(stop)), sent, whole, carried)
