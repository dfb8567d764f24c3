"""A model's chat template, compiled once and rendered under the meter."""

from collections.abc import Mapping
from typing import Any

from jinja2 import TemplateError as JinjaError

from townhall.errors import TemplateError
from townhall.formats.marked_text import joined
from townhall.formats.metered_jinja import MeteredEnvironment, OverBudget

MAX_SOURCE = 128 * 1024  # characters of template; the longest known ones have 20,000
STEPS = 300_000  # allowed per rendering, under a second's worth
STEPS_PER_MESSAGE = 3_000  # and for each message more; elaborate templates take a few hundred

INSTEAD = "pass --format chat_log to do without it"


class TooMuchWork(TemplateError):
    """The template asks for more steps or memory than a rendering may take."""


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

    def render(self, messages: list[dict[str, Any]], variables: Mapping[str, Any]) -> str:
        """The template's text; TemplateError where it refuses the messages, fails, or asks for too much.

        What is marked as words in `messages` is marked in the text.
        """
        self._environment.allow(STEPS + STEPS_PER_MESSAGE * len(messages), _characters(messages) + _characters(variables.get("tools")))
        parts: list[str] = []
        length = 0
        try:
            for part in self._template.generate(**variables, messages=messages):
                parts.append(part)
                if (length := length + len(part)) > self._environment.max_text:
                    raise OverBudget
        except OverBudget:
            raise TooMuchWork(f"the model's chat template asks for too much work; {INSTEAD}") from None
        # whatever a stranger's program can raise: its own refusal, a TypeError, a RecursionError, an undefined name
        except Exception as error:
            raise TemplateError(f"the model's chat template fails: {_brief(error)}; {INSTEAD}") from error
        return joined(parts)


def _brief(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


def _characters(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return sum(map(_characters, value)) if isinstance(value, list) else len(value) if isinstance(value, str) else 0
