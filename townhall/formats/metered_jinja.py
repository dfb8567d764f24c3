"""Jinja's sandbox with a meter: a template pays for every loop turn, call and value, so none runs or grows without bound.

Chat templates are programs out of a downloaded file. The sandbox alone keeps a template away from Python's internals, but
`{% for a in range(99999) %}` twice nested, a string that doubles itself, or a list that holds itself twice thirty times over would still
hold up the machine or fill its memory.
"""

import datetime
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn

from jinja2 import TemplateError as JinjaError
from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from townhall.errors import TemplateError

MAX_TEXT = 256 * 1024  # characters of any one value; messages are rendered as short placeholders, so this is plenty
MAX_ITEMS = 50_000  # in any one value, nested ones included
BLOCK = 64  # characters that count as one step

# what templates of published models use; the rest can make much of little (center, indent, …) and is not missed
FILTERS = """abs bool capitalize count default d dictsort e escape first float groupby int items last length list lower map max min
reject rejectattr reverse round safe select selectattr sort string sum title trim unique upper""".split()
BARRED_METHODS = {"center", "encode", "expandtabs", "format", "format_map", "ljust", "rjust", "translate", "zfill"}


class OverBudget(Exception):
    """The steps are used up, or one value grew too large."""


class GenerationTag(Extension):
    """`{% generation %}…{% endgeneration %}` marks what the model wrote, for training; here only its body counts."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Notes(Namespace):
    """`namespace()`; it shows nothing of itself, because namespaces may hold each other."""

    def __repr__(self) -> str:
        return "<namespace>"


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """Set `steps_left` before a rendering; OverBudget ends one that needs more."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        # trimmed as the reference implementation (transformers' apply_chat_template) does
        super().__init__(trim_blocks=True, lstrip_blocks=True, autoescape=False, extensions=[GenerationTag, loopcontrols])
        self.steps_left = 0
        self.macro_cost = 0
        self.filters = {name: self._metered(self.filters[name]) for name in FILTERS if name in self.filters}
        self.filters |= {"join": self._join, "replace": self._replace, "tojson": self._to_json}
        self.filters |= {"metered_loop": self._loop, "metered_value": self.weigh, "metered_concat": self._concat}
        self.tests = {name: self._metered(test) for name, test in self.tests.items()}
        self.globals = {"range": self.globals["range"], "dict": dict, "namespace": Notes}
        self.globals |= {"raise_exception": _refuse, "strftime_now": _strftime_now}

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
            node.expr = self._filter("metered_value", node.expr)
            for operand in node.ops:
                operand.expr = self._filter("metered_value", operand.expr)
        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            node.node = self._filter("metered_value", node.node)
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

    def weigh(self, value: Any) -> Any:
        """`value`, paid for by its whole size, nested parts included: a list that doubles itself is found out."""
        pending, items = [value], 0
        while pending:
            item = pending.pop()
            self.pay(item)
            if (items := items + 1) > MAX_ITEMS:
                raise OverBudget
            if isinstance(item, list | tuple):
                pending.extend(item)
            elif isinstance(item, dict):
                pending.extend(item.values())
        return value

    def pay(self, value: Any) -> Any:
        """`value`, paid for by its length."""
        if isinstance(value, str):
            if len(value) > MAX_TEXT:
                raise OverBudget
            self.charge(1 + len(value) // BLOCK)
        elif isinstance(value, list | tuple | dict | range):
            self.charge(1 + len(value))
        elif isinstance(value, int) and value.bit_length() > 256:
            raise OverBudget
        return value

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in BARRED_METHODS and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> None:
        """Jinja would let a format method through in a wrapper; here it is barred by its name."""

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "%" and isinstance(left, str):
            raise JinjaError("text formatted with % is not allowed")
        if operator == "**" and not (isinstance(left, int | float) and isinstance(right, int | float) and abs(right) <= 64):
            raise OverBudget
        if operator == "*":
            for sized, times in ((left, right), (right, left)):
                if isinstance(sized, str | list | tuple) and isinstance(times, int) and len(sized) * times > MAX_TEXT:
                    raise OverBudget
        return self.weigh(super().call_binop(context, operator, self.pay(left), self.pay(right)))

    # jinja's own signature: the names must not clash with a called function's keywords
    def call(__self, __context: Context, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        __self.charge(1 + (__self.macro_cost if isinstance(__obj, Macro) else 0))
        owner, method = getattr(__obj, "__self__", None), getattr(__obj, "__name__", "")
        if isinstance(owner, str):
            __self.pay(owner)
            if method == "replace":
                return __self._replace(owner, *args, **kwargs)
            if method == "join":
                return __self._join(args[0], owner)
        return __self.weigh(super().call(__context, __obj, *args, **kwargs))

    def _metered(self, function: Any) -> Callable[..., Any]:
        """A filter or test whose input and output are paid for."""

        def metered(*args: Any, **kwargs: Any) -> Any:
            for value in args:
                self.weigh(value)
            result = function(*args, **kwargs)
            # a lazy result is drawn here, so that it is paid for
            return self.pay([self.pay(item) for item in result] if isinstance(result, Iterator) else result)

        if (first_argument := getattr(function, "jinja_pass_arg", None)) is not None:
            metered.jinja_pass_arg = first_argument  # type: ignore[attr-defined]
        return metered

    def _loop(self, values: Iterable[Any], cost: int) -> Iterator[Any]:
        """The values of a for loop; each turn costs what its body may evaluate."""
        for value in values:
            self.charge(cost)
            yield value

    def _concat(self, values: list[Any]) -> str:
        """The ~ operator."""
        return self._join(values)

    def _join(self, values: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
        parts, separator, length = [], str(d), 0
        for value in values:
            part = str(self.weigh(value if attribute is None else self.getitem(value, attribute)))
            if (length := length + len(part) + len(separator)) > MAX_TEXT:
                raise OverBudget
            parts.append(part)
        return str(self.pay(separator.join(parts)))

    def _replace(self, text: Any, old: Any, new: Any, count: int | None = None) -> str:
        text, old, new = str(self.weigh(text)), str(self.pay(old)), str(self.pay(new))
        if len(text) + (text.count(old) * len(new)) > MAX_TEXT:
            raise OverBudget
        return str(self.pay(text.replace(old, new, -1 if count is None else count)))

    def _to_json(self, value: Any, ensure_ascii: bool = False, indent: int | None = None, **_: Any) -> str:
        """As transformers' own: plain JSON, nothing escaped for HTML."""
        self.weigh(value)
        return str(self.pay(json.dumps(value, ensure_ascii=ensure_ascii, indent=min(indent, 8) if indent else None)))


def _size(node: nodes.Node) -> int:
    return 1 + sum(1 for _ in node.find_all(nodes.Node))


def _refuse(message: Any = "") -> NoReturn:
    raise JinjaError(str(message)[:200])


def _strftime_now(format: str) -> str:
    # each % is looked at once: with %\W*\d, a format of a hundred of them took five thousand steps, and no step was paid for
    if len(format) > 100 or re.search(r"%[^\w%]*\d", format):
        raise JinjaError("a date format this elaborate is not allowed")
    return datetime.datetime.now().strftime(format)


MAX_SOURCE = 128 * 1024  # characters of template; the longest known ones have 20,000
STEPS = 300_000  # allowed per rendering, under a second's worth
STEPS_PER_MESSAGE = 3_000  # and for each message more; elaborate templates take a few hundred

INSTEAD = "pass --format chat_log to do without it"


class Sandbox:
    """A compiled template that can be rendered any number of times."""

    def __init__(self, source: str):
        """Compile; TemplateError where it is no template or too large a one."""
        if len(source) > MAX_SOURCE:
            raise TemplateError(f"the model's chat template has {len(source):,} characters, more than {MAX_SOURCE:,}; {INSTEAD}")
        self._environment = MeteredEnvironment()
        try:
            self._template = self._environment.from_string(source)
        except JinjaError as error:
            line = getattr(error, "lineno", None)
            where = f", line {line}" if line else ""
            raise TemplateError(f"the model's chat template does not parse{where}: {_brief(error)}; {INSTEAD}") from error
        except (RecursionError, MemoryError, SyntaxError, ValueError) as error:
            raise TemplateError(f"the model's chat template does not compile: {_brief(error)}; {INSTEAD}") from error

    def render(self, messages: list[dict[str, str]], variables: Mapping[str, Any]) -> str:
        """The template's text; TemplateError where it refuses the messages, fails, or asks for too much."""
        self._environment.steps_left = STEPS + STEPS_PER_MESSAGE * len(messages)
        parts: list[str] = []
        length = 0
        try:
            for part in self._template.generate(**variables, messages=messages):
                parts.append(part)
                if (length := length + len(part)) > MAX_TEXT:
                    raise OverBudget
        except OverBudget:
            raise TemplateError(f"the model's chat template asks for too much work; {INSTEAD}") from None
        # whatever a stranger's program can raise: its own refusal, a TypeError, a RecursionError, an undefined name
        except Exception as error:
            raise TemplateError(f"the model's chat template fails: {_brief(error)}; {INSTEAD}") from error
        return "".join(parts)


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]
