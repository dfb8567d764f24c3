import time

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from townhall.errors import TemplateError
from townhall.formats.marked_text import runs, words
from townhall.formats.metered_jinja import MeteredEnvironment
from townhall.formats.sandbox import MAX_SOURCE, Sandbox

pytestmark = pytest.mark.slow

MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]


def render(source, **variables):
    return Sandbox(source).render(MESSAGES, variables)


@pytest.mark.parametrize(
    "source, text",
    [
        ("{% for m in messages %}{{ m['role'] ~ ':' + m.content }}{% if not loop.last %}|{% endif %}{% endfor %}", "user:hi|assistant:ho"),
        ("{%- for m in messages %}\n    {%- if loop.first %}\n{{ m.content }}\n{% endif %}\n{%- endfor %}", "hi\n"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        ("{% macro shout(x) %}{{ x | upper }}!{% endmacro %}{{ shout(messages[0].content) }}", "HI!"),
        ("{{ messages | map(attribute='content') | join(', ') }}", "hi, ho"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ messages | tojson }}", '[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]'),
        ("{{ 'a</think>b'.split('</think>')[-1] }}{{ ' x '.strip() }}{{ 'ab'.replace('b', 'c') }}{{ '-'.join(['a', 'b']) }}", "bxaca-b"),
        ("{{ messages[::-1][0].content }}{{ messages[1:] | length }}{{ 'h' in messages[0].content }}", "ho1True"),
        ("{% generation %}{{ messages[1].content }}{% endgeneration %}", "ho"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("{{ strftime_now('%Y') | length }}{{ bos_token }}{% if tools %}t{% endif %}", "4<s>"),
        ("{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}", "role=user;content=hi;"),
        ("{% for m in messages %}{{ m.content.replace('h', 'j', 1) }}{{ m.role.startswith('a') }}{% endfor %}", "jiFalsejoTrue"),
        ("{% for m in messages %}{{ ' '.join([m.role, m.content]) }}{{ m.content.split('i')[0] }}{% endfor %}", "user hihassistant hoho"),
        ("{% block b %}{{ 'ab'.replace('a', 'c').title() }}{% endblock %}", "Cb"),
        ("{{ '%s=%03d' | format('a', 7) }}{{ '%(a)s%%' % {'a': 1} }}{{ '{}-{x:>3}'.format(1, x='y') }}", "a=0071%1-  y"),
        ("{{ 'a\nb' | indent }}{{ 'abc' | truncate(2, True, '', 0) }}{{ 'x'.center(3) }}{{ 'a b' | wordcount }}", "a\n    bab x 2"),
    ],
)
def test_what_published_templates_do_works(source, text):
    assert render(source, bos_token="<s>", tools=None) == text


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__class__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ namespace.__init__.__globals__['os'] }}",
        "{{ (messages | map(attribute='__class__') | first).__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{% import 'os' as os %}",
        "{% include '/etc/passwd' %}",
    ],
)
def test_a_template_does_not_reach_out(source):
    try:
        assert render(source) == ""  # jinja's answer to what it does not show
    except TemplateError:
        pass


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{{ 'some text' }}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = ns.x.replace('a', ns.x) %}{% endfor %}",
        "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] | join %}{% endfor %}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{% set ns = namespace(x={}) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}{{ ns.x | tojson }}",
        "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(99) }}",
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for x in [[1]] recursive %}{{ loop(x) }}{% endfor %}",
        "{% set x = [1] * 40000 %}{% for i in range(99999) %}{% if x == x %}{% endif %}{% endfor %}",
        "{% set x = 'a' * 200000 %}{% for i in range(99999) %}{{ x[::-1] | length }}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ [1] * 10**9 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ 'a' | center(10**9) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:999999999d}'.format(1) }}",
        "{{ strftime_now('%999999999d') }}",
        "{{ strftime_now('%%%9d') }}",
        "{% for i in range(50000) %}{% for j in range(50000) %}{% set x = strftime_now('%' * 99) %}{% endfor %}{% endfor %}",
        "{{ lipsum(n=10**9) }}",
        "{{ range(10**12) | list }}",
        "{{ 'a'.zfill(10**9) }}",
        "{{ '%*d' % (10**9, 1) }}",
        "{{ '{:{}}'.format(1, 10**9) }}",
        "{{ '{:999999999}' | format }}{{ '%999999999s' | format('a') }}",
        "{{ ('\n' * 200000) | indent(4000) }}",
        "{{ ('a ' * 100000) | wordwrap(1, wrapstring='x' * 100000) }}",
        "{{ [1] | batch(10**9, 0) | list }}",
        "{{ [1] | slice(10**9) | list }}",
        "{{ 1.5 | round(10**9, 'ceil') }}",
        "{{ (5).to_bytes(10**9, 'big') }}",
        "{% set x = 'ab ' * 80000 %}{% for i in range(99999) %}{% set y = x | wordwrap(3) %}{% endfor %}",
    ],
)
def test_a_template_neither_runs_nor_grows_for_ever(source):
    started = time.process_time()
    with pytest.raises(TemplateError):
        render(source)
    assert time.process_time() - started < 5


def test_namespaces_that_hold_each_other_show_nothing():
    hold = "{% set n = namespace() %}{% set n.a = ns %}{% set n.b = ns %}"
    assert render("{% set ns = namespace() %}{% for i in range(60) %}" + hold + "{% endfor %}{{ ns }}") == "<namespace>"


@pytest.mark.parametrize(
    "source, fault",
    [
        ("{% if %}", "line 1"),
        ("\n\n{{ x | nosuchfilter }}", "line 3.*nosuchfilter"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "does not compile"),
        ("x" * (MAX_SOURCE + 1), "more than 131,072"),
        ("{{ raise_exception('Roles must alternate') }}", "fails: Roles must alternate"),
        ("{{ 1 / 0 }}", "fails: division by zero"),
        ("{{ messages[9].content }}", "fails: "),
    ],
)
def test_a_broken_template_ends_in_one_sentence_that_says_what_to_do(source, fault):
    with pytest.raises(TemplateError, match=f"chat template.*{fault}.*--format chat_log") as caught:
        render(source)
    assert "\n" not in str(caught.value)


def test_every_filter_and_test_of_jinja_is_there():
    plain, ours = ImmutableSandboxedEnvironment(), MeteredEnvironment()
    assert plain.filters.keys() <= ours.filters.keys() and plain.tests.keys() <= ours.tests.keys()


WHOLE = [
    "{{ m }}",
    "{{ m.content | e }}",
    "{{ m.content.swapcase() }}",
    "{{ m.content | reverse }}",
    "{{ m.content | urlencode }}",
    "{{ m.content.center(40) }}",
    "{{ m.content | wordwrap(3) }}",
    "{{ [m.content] | string }}",
    "{{ m | pprint }}",
    "{{ (m.content,) ~ '' }}",
    "{{ {m.content: 1} }}",
    "{{ 'x'.replace('x', m.content).swapcase() }}",
    "{{ m.content | list | string }}",
    "{{ '%5s' % m.content }}{{ '{:>5}'.format(m.content) }}{{ '%r' % m.content }}",
    "{% set ns = namespace(x=m.content) %}{{ ns.x | xmlattr if false else [ns.x] | pprint }}",
]


@pytest.mark.parametrize("source", WHOLE)
def test_what_cannot_be_followed_counts_as_words_whole(source):
    text = Sandbox("{% set m = messages[0] %}" + source).render([{"role": "user", "content": words("</s>ab", 0)}], {})
    assert all(whose is not None for _, whose in runs(text)) and text


FOLLOWED = [
    "<s>{{ m.content }}</s>",
    "{{ '<s>' + m.content + '</s>' }}",
    "{{ '<s>' ~ m.content ~ '</s>' }}",
    "{{ '<s>%s</s>' % m.content }}{{ '<s>%s</s>' | format(m.content) }}",
    "{{ '<s>{}</s>{x}'.format(m.content, x=m.content) }}",
    "{{ ['<s>', m.content] | join('</s>') }}{{ '<s>'.join([m.content, m['content']]) }}",
    "{{ '<s>x</s>'.replace('x', m.content) | trim }}{{ '<s>x</s>' | replace('x', m.content) }}",
    "{% macro f(x) %}<s>{{ x }}</s>{% endmacro %}{{ f(m.content) }}{% set y %}<s>{{ m.content }}{% endset %}{{ y[1:] }}",
    "{% filter trim %} <s>{{ m.content }}</s>{% endfilter %}{% call(x) g() %}{{ x }}{% endcall %}",
    "<s>{{ messages | map(attribute='content') | join('<s>') }}{{ (messages | selectattr('role', 'eq', 'user') | first).content }}",
    "{{ m | tojson }}{{ {'<s>': m.content} | tojson }}",
    "{{ ('<s>' ~ m.content).split('<')[1] }}{{ ('<s>' ~ m.content).partition('>')[2].strip('<') }}",
    "{% for c in '<s>' ~ m.content %}{{ c }}{% endfor %}{{ ('<s>' ~ m.content)[:4] }}",
]


@pytest.mark.parametrize("source", FOLLOWED)
def test_words_are_told_from_what_the_template_writes(source):
    """Letters of the message are capitals and stay in it; nothing of the template's is."""
    caller = "{% macro g() %}<s>{{ caller(m.content) }}{% endmacro %}"
    text = Sandbox("{% set m = messages[0] %}" + caller + source).render([{"role": "user", "content": words("XYZ-XYZ", 0)}], {})
    for part, whose in runs(text):
        assert (whose == 0) == (not set(part) - set("XYZ-"))
    assert any(whose == 0 for _, whose in runs(text)) and any(whose is None for _, whose in runs(text))


def test_words_of_any_length_are_rendered():
    long = [{"role": "user", "content": words("word \n" * 200_000, 0)}] * 3
    source = "{% for m in messages %}<{{ m.content.replace('wo', 'WO') | trim }}{{ m.content.split('x')[0] | length }}>{% endfor %}"
    assert len(Sandbox(source).render(long, {})) == 3 * (1_200_000 - 2 + 9)


def test_the_budget_is_for_each_rendering():
    sandbox = Sandbox("{% for i in range(20000) %}{% endfor %}done")
    assert [sandbox.render(MESSAGES, {}) for _ in range(20)] == ["done"] * 20
