"""Answers over the wire, from a server that does what servers do: each fault is one sentence, nothing is doubled, no key is told."""

import gzip
import threading

import pytest

from app.models.llama import SamplingParams
from tests.townhall.via.misbehaving import Misbehaving, fails, says, sends
from townhall.via.answering import AnswerQuestion
from townhall.via.endpoint import RemoteEndpoint, TokenPrice
from townhall.via.errors import RemoteError
from townhall.via.remote_model import RemoteModel, request_fields, without

pytestmark = pytest.mark.slow

STREAM = "text/event-stream"
KEY = "sk-very-secret-1234"
QUESTION = AnswerQuestion([{"role": "user", "content": "Hi"}], 20, SamplingParams(temperature=0.5, seed=3), ("\nUser:",), 40, 100)


def ask(server, question=QUESTION, **fields):
    url = server if isinstance(server, str) else server.url
    endpoint = RemoteEndpoint(url, "big", fields.pop("key", KEY), timeout=fields.pop("timeout", 60.0), **fields)
    return RemoteModel(endpoint).answer(question)


def fault(server, **fields):
    answer = ask(server, **fields)
    with pytest.raises(RemoteError) as found:
        list(answer)
    answer.close()
    assert KEY not in str(found.value) and "\n" not in str(found.value)
    return found.value, answer


def test_an_answer_comes_in_pieces_with_its_figures_and_price():
    with Misbehaving(says(" Hello", " you", " there ")) as server:
        answer = ask(server, price=TokenPrice(2.0, 10.0, "EUR"))
        assert "".join(answer) == "Hello you there" == answer.text and answer.finish_reason == "stop"
        ((headers, body),) = server.asked
    assert headers["authorization"] == f"Bearer {KEY}" and body["messages"] == QUESTION.messages
    assert body | {"stream": True, "model": "big", "max_tokens": 20, "temperature": 0.5, "seed": 3, "stop": ["\nUser:"]} == body
    figures = answer.figures
    assert (figures.server_tokens, figures.tokens, figures.sent_tokens, figures.whole_tokens) == (50, 3, 40, 100)
    # 50 tokens at 2 and 3 at 10 for a million; the whole history is 2.5 times the prompt that was sent
    assert figures.cost == pytest.approx((50 * 2 + 3 * 10) / 1e6) and figures.whole_cost == pytest.approx((125 * 2 + 3 * 10) / 1e6)
    assert "40 tokens of 100 (60% less)" in figures.describe() and "EUR" in figures.describe()


def test_without_a_key_none_is_sent_and_the_environment_adds_nothing(monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "secret")
    with Misbehaving(says("Fine")) as server:
        assert "".join(ask(server, key=None)) == "Fine"
        ((headers, _),) = server.asked
    assert "secret" not in str(headers) and "authorization" not in headers


@pytest.mark.parametrize(
    "behaviour, words, away",
    [
        (fails(401, f"Incorrect API key provided: {KEY}"), "refused the key of TOWNHALL_VIA_KEY (401)", False),
        (fails(403, "no"), "refused the key", False),
        (fails(404, "The model `big` does not exist"), "has no model 'big'", False),
        (fails(400, f"bad {KEY} request\nindeed"), "refused the request (400) (bad … request indeed)", False),
        (fails(429, "quota"), "takes no more requests now, or the account is used up (429) (quota)", True),
        (fails(500, "oops"), "failed (500) (oops)", True),
        (fails(503), "failed (503)", True),
        (sends(b"<html>Welcome</html>"), "sent something that is no answer of a chat model", False),
        (sends(b'{"choices": []}', "application/json"), "sent something that is no answer", False),
        (sends(b"data: {not json}\n\n", STREAM), "sent something that is no answer", False),
        (sends(b'data: {"choices": 7}\n\n', STREAM), "sent something that is no answer", False),
        (sends(b"data: " + b"x" * 3_000_000, STREAM), "sent something that is no answer", False),
        (
            sends(gzip.compress(b"data: [DONE]\n\n"), STREAM, Content_Encoding="gzip"),
            "sent something that is no answer",
            False,
        ),
        (
            sends(b'data: {"error": {"message": "overloaded"}}\n\n', STREAM),
            "ended the answer with an error (overloaded)",
            True,
        ),
    ],
)
def test_each_fault_is_one_sentence(behaviour, words, away):
    with Misbehaving(behaviour) as server:
        error, answer = fault(server)
    assert words in str(error) and error.away == away and answer.text == ""


def test_a_missing_key_is_asked_for():
    with Misbehaving(fails(401, "You didn't provide an API key")) as server:
        error, _ = fault(server, key=None)
    assert "wants a key (401); export it as TOWNHALL_VIA_KEY" in str(error)


def test_a_server_that_is_not_there_or_silent_is_away():
    with Misbehaving(says("x")) as server:
        url = server.url
    error, _ = fault(url)
    assert error.away and "cannot be reached" in str(error)
    over = threading.Event()
    with Misbehaving(lambda handler: over.wait()) as server:
        error, _ = fault(server, timeout=0.2)
        over.set()
    assert error.away and "was silent for 0.2 s" in str(error)


def test_what_came_before_a_break_is_kept_once():
    with Misbehaving(says("One", " two", finish=None)) as server:
        error, answer = fault(server)
        assert len(server.asked) == 1
    assert "broke off" in str(error) and answer.text == "One two" and answer.finish_reason is None


def test_a_busy_server_is_asked_again_and_refused_fields_are_left_out():
    with Misbehaving(fails(429), fails(500), says("Fine")) as server:
        assert "".join(ask(server)) == "Fine" and len(server.asked) == 3
    refused = fails(400, "Unsupported parameter", param="max_tokens"), fails(400, "Unsupported value", param="temperature")
    with Misbehaving(*refused, says("Fine")) as server:
        assert "".join(ask(server)) == "Fine"
        bodies = [body for _, body in server.asked]
    assert bodies[1]["max_completion_tokens"] == 20 and "max_tokens" not in bodies[1] and "temperature" not in bodies[2]
    assert without(request_fields(QUESTION), "messages") is None


def test_a_stop_string_thoughts_and_a_carried_text_are_as_with_the_local_model():
    with Misbehaving(says("<think>Well", "</think>", " Yes", ".\nUs", "er: and", " more")) as server:
        answer = ask(server)
        assert "".join(answer) == "Yes." and answer.reasoning == "Well" and answer.finish_reason == "stop"
        answer.close()
        carried = AnswerQuestion(QUESTION.messages, 20, carried="It is")
        assert "".join(ask(server, carried)).startswith("It is Yes.")


def test_closing_an_answer_closes_its_connection():
    gone = threading.Event()

    def endless(handler):
        handler.begin()
        try:
            while True:
                handler.piece("more ")
        except OSError:
            gone.set()

    with Misbehaving(endless) as server:
        answer = ask(server, AnswerQuestion(QUESTION.messages, 1 << 20))
        pieces = iter(answer)
        while not next(pieces):
            pass
        answer.close()
        assert gone.wait(60) and answer.text.startswith("more")


def test_while_nothing_comes_the_caller_is_not_held():
    over = threading.Event()
    with Misbehaving(lambda handler: over.wait()) as server:
        answer = ask(server)
        assert next(iter(answer)) == ""
        answer.close()
        over.set()
    assert answer.text == ""
