"""What a template says of calls, and calls found in text however it is cut."""

import itertools
import json
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.townhall.fake import CHATML
from tests.townhall.formats.call_templates import HERMES, LLAMA3, MARKS, MISTRAL
from townhall.formats.call_parser import CallParser, CallPart
from townhall.formats.call_probe import learnt_from
from townhall.formats.call_syntax import GENERAL, ID, CallSyntax, template_id
from townhall.formats.prompt_pieces import ToolCall

SYNTAXES = {
    "general": GENERAL,
    "hermes": learnt_from(HERMES),
    "llama3": learnt_from(LLAMA3, "<s>", "</s>"),
    "mistral": learnt_from(MISTRAL, "<s>", "</s>"),
    "marks": learnt_from(MARKS, "<s>", "</s>"),
}
NAMES = ("get", "get_weather", "add.two-3")


def test_a_template_says_how_it_lays_out_calls():
    hermes, llama3, mistral, marks = (SYNTAXES[name] for name in ("hermes", "llama3", "mistral", "marks"))
    assert hermes == CallSyntax(GENERAL.opening, GENERAL.middle, GENERAL.closing, GENERAL.joint, template=True)
    assert (llama3.opening, llama3.middle, llama3.closing, llama3.joint) == ('{"name": "', '", "parameters": ', "}", None)
    assert (llama3.trigger, llama3.leads) == ('{"name": "', True)
    assert (mistral.opening, mistral.closing) == ('[TOOL_CALLS] [{"name": "', f', "id": "{ID}"}}]')
    assert mistral.joint == f', "id": "{ID}"}}, {{"name": "' and (mistral.trigger, mistral.leads) == ("[TOOL_CALLS]", False)
    assert (marks.opening, marks.middle, marks.closing, marks.joint) == ("[TOOL_CALLS]", "[ARGS]", "", "[TOOL_CALLS]")
    assert marks.arguments_as_text and not mistral.arguments_as_text


@pytest.mark.parametrize(
    "template",
    [
        CHATML,
        "{% if tools %}{{ tools | tojson }}{% endif %}" + CHATML,  # leaves calls out
        HERMES.replace("<tool_response>\n' + message.content", "<tool_response>\n'"),  # and results
        HERMES.replace("call.function.arguments | tojson", "call.function.arguments | length"),  # no JSON
        "{{ raise_exception('never') }}",
        "{% for",
    ],
)
def test_any_other_template_leaves_the_general_form(template):
    assert learnt_from(template) is GENERAL


def test_ids_are_nine_letters_and_digits_in_a_template():
    assert template_id("VvvODy9mT") == "VvvODy9mT"
    long = [template_id(f"call_{n}") for n in range(100)]
    assert len(set(long)) == 100 and all(len(id) == 9 and id.isalnum() for id in long) and template_id("call_7") == long[7]


def read(syntax: CallSyntax, pieces: Iterable[str]) -> tuple[str, list[tuple[str, str]]]:
    """(what is said, calls); holds that parts come in order."""
    parser, said, calls = CallParser(syntax, NAMES), "", []
    for part in [*itertools.chain.from_iterable(map(parser.push, pieces)), *parser.flush()]:
        if isinstance(part, CallPart):
            if part.name:
                assert part.index == len(calls) and not part.arguments
                calls.append((part.name, ""))
            else:
                assert part.index == len(calls) - 1
                calls[-1] = (calls[-1][0], calls[-1][1] + part.arguments)
        else:
            said += part
    return said, calls


VALUES = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=6), st.lists, max_leaves=4)
ARGUMENTS = st.dictionaries(st.text(max_size=4), VALUES, max_size=3)


@pytest.mark.parametrize("name", SYNTAXES)
@settings(max_examples=40, deadline=None, database=None)
@given(data=st.data())
def test_what_was_written_is_read_however_it_is_cut(name, data):
    syntax = SYNTAXES[name]
    most = 3 if syntax.joint is not None else 1
    calls = [
        ToolCall("abcdef123", data.draw(st.sampled_from(NAMES)), json.dumps(data.draw(ARGUMENTS), ensure_ascii=data.draw(st.booleans())))
        for _ in range(data.draw(st.integers(0, most)))
    ]
    said = "" if syntax.leads and calls else data.draw(st.sampled_from(["", "Let me see.", "I\n\n think <b> [so] {now}"]))
    text = "\n".join(filter(None, [said, syntax.write(calls)]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=6)))
    pieces = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    expected = (said, [(call.name, call.arguments) for call in calls])
    assert read(syntax, pieces) == expected == read(syntax, text)


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>",
        "What is <tool_call> for?",
        '<tool_call>\n{"name": "unknown", "arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "get", "parameters": {}}\n</tool_call>',
        '<tool_call>\n["get"]',
        "a <tool_cal",
        " <tool_call> <tool_call> ",
    ],
)
def test_what_is_no_call_is_text(text):
    said, calls = read(GENERAL, text)
    assert calls == [] and said.strip() == text.strip()


def test_white_space_between_the_marks_is_free_and_what_follows_is_text():
    spaced = '<tool_call>{ "name":"get" ,"arguments" : {"a": [1, "}"]} }  </tool_call>\n\n And now?'
    assert read(GENERAL, spaced) == ("And now?", [("get", '{"a": [1, "}"]}')])
    assert read(GENERAL, '<tool_call>\n{"name": "get", "arguments": {"a": "b') == ("", [("get", '{"a": "b')])
    assert read(SYNTAXES["llama3"], 'Well: {"name": "get", "parameters": {}}') == ('Well: {"name": "get", "parameters": {}}', [])
