"""Jinja's sandbox with a meter: a template pays for every loop turn, call and value, so none runs or grows without bound.

Chat templates are programs out of a downloaded file. The sandbox alone keeps a template away from Python's internals, but
`{% for a in range(99999) %}` twice nested, a string that doubles itself, or a list that holds itself twice thirty times over would still
hold up the machine or fill its memory. The meter's other half is the marks: whatever a template makes of a message's words stays marked as
words (`marked_text`), through every operator, method and filter.
"""

import datetime
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from string import Formatter
from typing import Any, NoReturn

from jinja2 import TemplateError as JinjaError
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace

from townhall.formats.marked_text import MarkedText, as_words, holds_words, joined, runs, words

MAX_TEXT = 256 * 1024  # characters of any one value, beside four times what the messages have
MAX_ITEMS = 50_000  # in any one value, nested ones included
MAX_NUMBER = 4096  # of a width, or of how many parts to make
MAX_AFFIX = 64  # characters put before each line or word
BLOCK = 64  # characters that count as one step

# these hand values on as they are; the others make a text of them
HANDING_ON = frozenset(
    """attr batch count d default dictsort first groupby items last length list map max min random reject rejectattr reverse select
selectattr slice sort sum unique""".split()
)
SLOW = frozenset("pprint striptags title truncate urlencode urlize wordcount wordwrap xmlattr".split())  # a step for each character
SIZED = frozenset("batch center indent round slice truncate urlize wordwrap".split())
AFFIXING = frozenset("indent urlize wordwrap".split())
COMPARING = frozenset("== != < <= > >= eq equalto ge greaterthan gt in le lessthan lt ne".split())
BARRED_METHODS = {"encode", "expandtabs", "format_map", "maketrans", "to_bytes", "translate"}
PADDING = {"center", "ljust", "rjust", "zfill"}


class OverBudget(Exception):
    """The steps are used up, or one value grew too large."""


class GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks what the model wrote, for training; here only its body counts."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        lineno = next(parser.stream).lineno
        # what is set inside is gone outside, as in transformers
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=lineno)


class Notes(Namespace):
    """`namespace()`; it shows nothing of itself, because namespaces may hold each other."""

    def __repr__(self) -> str:
        return "<namespace>"


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """`allow` a rendering its steps before it begins; OverBudget ends one that needs more."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    concat = staticmethod(joined)  # what macros, blocks and {% set %}…{% endset %} collect

    def __init__(self) -> None:
        # trimmed as the reference implementation (transformers' apply_chat_template) does
        super().__init__(trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=[GenerationTag, loopcontrols])
        self.steps_left, self.max_text, self.macro_cost = 0, MAX_TEXT, 0
        self.filters = {name: self._metered(name, function) for name, function in self.filters.items()}
        self.filters |= {"join": self._join, "replace": self._replace, "tojson": self._to_json, "string": self._text, "safe": self._text}
        self.filters |= {"format": self._format_filter, "metered_loop": self._loop, "metered_value": self.weigh, "metered_size": self.pay}
        self.filters |= {"metered_operand": self.measure, "metered_concat": self._join, "metered_text": self._text}
        self.tests = {name: self._metered_test(name, test) for name, test in self.tests.items()}
        self.globals = {name: self.globals[name] for name in ("range", "cycler", "joiner")}
        self.globals |= {"dict": dict, "namespace": Notes, "raise_exception": _refuse, "strftime_now": _strftime_now}

    def allow(self, steps: int, characters: int) -> None:
        """What the next rendering may take, with messages of so many characters."""
        self.steps_left, self.max_text = steps + characters, MAX_TEXT + 4 * characters

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        self.macro_cost = max((_size(macro) for macro in tree.find_all(nodes.Macro)), default=0)
        for loop in tree.find_all(nodes.For):
            if loop.recursive:
                raise JinjaError("recursive loops are not allowed")
            loop.iter = self._filter("metered_loop", loop.iter, nodes.Const(_size(loop)))
        # the innermost first, so that what is replaced has its own insides replaced already
        for parent in reversed([tree, *tree.find_all(nodes.Node)]):
            for field, value in list(parent.iter_fields()):
                if isinstance(value, nodes.Node):
                    setattr(parent, field, self._watched(value))
                elif isinstance(value, list):
                    setattr(parent, field, [self._watched(item) if isinstance(item, nodes.Node) else item for item in value])
        tree.set_lineno(1)
        return tree

    def _watched(self, node: nodes.Node) -> nodes.Node:
        """`node`, or what makes the same value under the meter."""
        if isinstance(node, nodes.Concat):
            return self._filter("metered_concat", nodes.List(node.nodes))
        if isinstance(node, nodes.List | nodes.Dict) or (isinstance(node, nodes.Tuple) and node.ctx == "load"):
            return self._filter("metered_value", node)
        if isinstance(node, nodes.Compare):
            node.expr = self._filter("metered_operand", node.expr)
            for operand in node.ops:
                operand.expr = self._filter("metered_operand", operand.expr)
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            node.node = self._filter("metered_size", node.node)
        if isinstance(node, nodes.Output):
            written = (nodes.TemplateData, nodes.Const)
            node.nodes = [part if isinstance(part, written) else self._filter("metered_text", part) for part in node.nodes]
        return node

    def _filter(self, name: str, value: Any, *args: nodes.Expr) -> nodes.Filter:
        filtered = nodes.Filter(value, name, list(args), [], None, None)
        filtered.set_environment(self)
        return filtered

    def charge(self, steps: int) -> None:
        """Take steps off the budget."""
        self.steps_left -= steps
        if self.steps_left < 0:
            raise OverBudget

    def pay(self, value: Any) -> Any:
        """`value`, paid for by its length."""
        if isinstance(value, str):
            if len(value) > self.max_text:
                raise OverBudget
            self.charge(1 + len(value) // BLOCK)
        elif isinstance(value, list | tuple | dict | range):
            self.charge(1 + len(value))
        elif isinstance(value, int) and value.bit_length() > 256:
            raise OverBudget
        return value

    def weigh(self, value: Any, text: bool = False) -> Any:
        """`value`, paid for with all that it contains: a list that doubles itself is found out. A text in it costs a step, or with `text`
        as much as by itself."""
        pending, items = [self.pay(value)], 0
        while pending:
            item = pending.pop()
            if (items := items + 1) > MAX_ITEMS:
                raise OverBudget
            if items > 1 and (text or not isinstance(item, str)):
                self.pay(item)
            if isinstance(item, list | tuple):
                pending.extend(item)
            elif isinstance(item, dict):
                pending.extend(item.values())
        return value

    def measure(self, value: Any) -> Any:
        """`value`, paid for with every character in it."""
        return self.weigh(value, text=True)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in BARRED_METHODS and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Jinja would wrap a format method; here `call` knows it."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            return self._percent(left, right)
        if operator == "**" and not (isinstance(left, int | float) and isinstance(right, int | float) and abs(right) <= 64):
            raise OverBudget
        if operator == "*":
            for sized, times in ((left, right), (right, left)):
                if isinstance(sized, str | list | tuple) and isinstance(times, int) and len(sized) * times > self.max_text:
                    raise OverBudget
        return self.weigh(super().call_binop(context, operator, self.pay(left), self.pay(right)))

    # jinja's own signature: the names must not clash with a called function's keywords
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self.charge(1 + (__self.macro_cost if isinstance(__obj, Macro) else 0))
        owner = getattr(__obj, "__self__", None)
        if isinstance(owner, str) and __self.is_safe_callable(__obj):
            given = {name: value for name, value in kwargs.items() if name not in ("_loop_vars", "_block_vars")}  # jinja's own
            return __self._call_method(owner, __obj, args, given)
        return __self.weigh(super().call(__context, __obj, *args, **kwargs))

    def _call_method(self, owner: str, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A method of a text."""
        name = method.__name__
        self.measure([owner, *args, *kwargs.values()])
        if name == "replace":
            return self._replace(owner, *args, **kwargs)
        if name == "join":
            return self._join(args[0], owner)
        if name == "format":
            return self._format(owner, args, kwargs)
        if name in PADDING and any(isinstance(value, int) and value > MAX_NUMBER for value in args):
            raise OverBudget
        result = self.weigh(method(*args, **kwargs))
        if isinstance(owner, MarkedText) and name in vars(MarkedText):
            return result
        marked = holds_words((owner, args, list(kwargs.values())))
        return _marked(result) if marked else result

    def _metered(self, name: str, function: Any) -> Callable[..., Any]:
        """A filter whose input and output are paid for, and whose text is words where its input is."""

        def metered(*args: Any, **kwargs: Any) -> Any:
            given = [*args, *kwargs.values()]
            before = self.steps_left
            for value in given:
                self.pay(value) if name in HANDING_ON else self.measure(value)
            if name in SLOW:
                self.charge((before - self.steps_left) * BLOCK)
            for value in given[1:]:
                if isinstance(value, int) and name in SIZED and abs(value) > (MAX_AFFIX if name in AFFIXING else MAX_NUMBER):
                    raise OverBudget
                if isinstance(value, str) and name in AFFIXING and len(value) > MAX_AFFIX:
                    raise OverBudget
            result = function(*args, **kwargs)
            # a lazy result is drawn here, so that it is paid for
            result = [self.pay(item) for item in result] if isinstance(result, Iterator) else result
            if name not in HANDING_ON and isinstance(result, str) and not any(result is value for value in given) and holds_words(given):
                result = _marked(result)
            return self.weigh(result)

        if (first_argument := getattr(function, "jinja_pass_arg", None)) is not None:
            metered.jinja_pass_arg = first_argument  # type: ignore[attr-defined]
        return metered

    def _metered_test(self, name: str, function: Any) -> Callable[..., Any]:
        """A test whose input is paid for."""

        def metered(*args: Any, **kwargs: Any) -> Any:
            for value in (*args, *kwargs.values()):
                self.measure(value) if name in COMPARING else self.pay(value)
            return function(*args, **kwargs)

        if (first_argument := getattr(function, "jinja_pass_arg", None)) is not None:
            metered.jinja_pass_arg = first_argument  # type: ignore[attr-defined]
        return metered

    def _loop(self, values: Iterable[Any], cost: int) -> Iterator[Any]:
        """The values of a for loop; each turn costs what its body may evaluate."""
        for value in values:
            self.charge(cost)
            yield value

    def _text(self, value: Any) -> str:
        """How a template shows a value."""
        if isinstance(value, str):
            return str(self.pay(value))
        text = str(self.measure(value))
        return as_words(text) if holds_words(value) else text

    def _join(self, values: Iterable[Any], d: Any = "", attribute: str | int | None = None) -> str:
        """The join filter, and the ~ operator."""
        parts: list[str] = []
        separator, length = self._text(d), 0
        for value in values:
            part = self._text(value if attribute is None else self.getitem(value, attribute))
            if (length := length + len(part) + len(separator)) > self.max_text:
                raise OverBudget
            parts += [separator, part] if parts and separator else [part]
        return self._paid(joined(parts))

    def _replace(self, text: Any, old: Any, new: Any, count: int | None = None) -> str:
        text, old, new = self._text(text), self._text(old), self._text(new)
        if len(text) + (text.count(old) * len(new)) > self.max_text:
            raise OverBudget
        followed = text if isinstance(text, MarkedText) or not isinstance(new, MarkedText) else MarkedText(text, ())
        return self._paid(followed.replace(old, new, -1 if count is None else count))

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """As transformers' own: plain JSON, nothing escaped for HTML."""
        self.measure([value, separators])
        leaves: dict[str, str] = {}
        text = json.dumps(
            _named(value, leaves, secrets.token_hex(8)),
            ensure_ascii=ensure_ascii,
            indent=min(indent, 8) if indent else indent,
            separators=separators,
            sort_keys=sort_keys,
        )
        parts = re.split(f"({'|'.join(leaves)})", text) if leaves else [text]
        return self._paid(joined(_escaped(leaves[part], ensure_ascii) if part in leaves else part for part in parts))

    def _format_filter(self, text: Any, *args: Any, **kwargs: Any) -> str:
        return self._percent(self._text(text), kwargs or args)

    def _percent(self, text: str, values: Any) -> str:
        """text % values."""
        self.measure([text, values])
        parts, at, rest = [], 0, iter(values if isinstance(values, tuple) else (values,))
        for found in _PERCENT.finditer(text):
            name, form, kind = found.groups()
            value = None if kind == "%" else values[name] if name else next(rest, _NOTHING)
            if value is _NOTHING:
                raise JinjaError("not enough values for the format")
            part = "%" if kind == "%" else self._text(value) if kind == "s" and not form else f"%{form}{kind}" % (value,)
            parts += [text[at : found.start()], _marked(part) if holds_words(value) else part]
            at = found.end()
        parts.append(text[at:])
        if any("%" in own for own in parts[::2]) or (isinstance(values, tuple) and next(rest, _NOTHING) is not _NOTHING):
            raise JinjaError("a format and its values do not match, or it is too elaborate")
        return self._paid(joined(parts))

    def _format(self, text: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """text.format(…)."""
        formatter, parts, number = SandboxedFormatter(self), [], 0
        for literal, field, form, conversion in Formatter().parse(text):
            parts.append(_marked(literal) if holds_words(text) else literal)
            if field is None:
                continue
            if re.match(r"[.\[]|$", field):
                field, number = f"{number}{field}", number + 1
            value = formatter.convert_field(formatter.get_field(field, args, kwargs)[0], conversion)
            if form and re.search(r"[{}]|\d{4}", form):
                raise OverBudget
            part = format(self.measure(value), form or "") if form or not isinstance(value, str) else value
            parts.append(_marked(part) if holds_words(value) else part)
        return self._paid(joined(parts))

    def _paid(self, text: str) -> str:
        self.pay(text)
        return text


_NOTHING = object()
_PERCENT = re.compile(r"%(?:\((\w+)\))?([#0\- +]*\d{0,3}(?:\.\d{0,3})?)([a-zA-Z%])")


def _marked(result: Any) -> Any:
    """A result that words went into: its texts are words, unless their marks came along."""
    if isinstance(result, str):
        return result if isinstance(result, MarkedText) else as_words(result)
    return type(result)(map(_marked, result)) if type(result) in (list, tuple) else result


def _named(value: Any, leaves: dict[str, str], prefix: str) -> Any:
    """`value` with names in place of the words in it."""
    if isinstance(value, MarkedText):
        leaves[name := f"{prefix}{len(leaves)}x"] = value
        return name
    if isinstance(value, dict):
        return {_named(key, leaves, prefix): _named(item, leaves, prefix) for key, item in value.items()}
    return [_named(item, leaves, prefix) for item in value] if isinstance(value, list | tuple) else value


def _escaped(text: str, ensure_ascii: bool) -> str:
    """Within the quotes of JSON."""
    return joined(
        part if whose is None else words(part, whose)
        for part, whose in ((json.dumps(own, ensure_ascii=ensure_ascii)[1:-1], whose) for own, whose in runs(text))
    )


def _size(node: nodes.Node) -> int:
    return 1 + sum(1 for _ in node.find_all(nodes.Node))


def _refuse(message: Any = "") -> NoReturn:
    raise JinjaError(str(message)[:200])


def _strftime_now(format: str) -> str:
    # each % is looked at once: with %\W*\d, a format of a hundred of them took five thousand steps, and no step was paid for
    if len(format) > 100 or re.search(r"%[^\w%]*\d", format):
        raise JinjaError("a date format this elaborate is not allowed")
    return datetime.datetime.now().strftime(format)
