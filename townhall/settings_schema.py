"""What a settings file may hold. pydantic is imported here only: it costs as much time as the rest of a start without a model."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, create_model, field_validator

from app.sampler_settings import DECLARED
from townhall.context.strategies import STRATEGIES
from townhall.template import FORMATS

CHOICES = {"context": list(STRATEGIES), "format": ["auto", *FORMATS]}
_SHOWN = 40  # characters of a wrong value


def _whole(allowed: str, **bounds: Any) -> Any:
    return Field(default=None, description=f"a whole number {allowed}", **bounds)


def _text(what: str) -> Any:
    return Field(default=None, description=what, min_length=1)


def _switch() -> Any:
    return Field(default=None, description="true or false")


def _choice(choices: list[str]) -> Any:
    return Field(default=None, description=f"one of {', '.join(choices)}")


def _tokens() -> Any:
    return Field(default=None, description="a list of tokens, each in quotes", max_length=64)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    @field_validator(*CHOICES, check_fields=False)
    @classmethod
    def _is_known(cls, value: str, info: ValidationInfo) -> str:
        if value not in CHOICES[str(info.field_name)]:
            raise ValueError(value)
        return value


def _sampler_fields() -> dict[str, Any]:
    nullable = {"repeat_penalty"}  # null: it depends on what is asked for
    found = {}
    for name, declared in DECLARED.items():
        bounds: dict[str, Any] = {**declared.bounds} if declared.kind is int else {**declared.bounds, "allow_inf_nan": False}
        declaration = Field(default=None, description=declared.description, **bounds)
        found[name] = (declared.kind | None if name in nullable else declared.kind, declaration)
    return found


# every key that a file may hold; a test keeps them equal to the flags of `townhall chat`
_FIELDS: dict[str, Any] = {
    "model": (str | None, _text("the path of a model")),
    "personality": (str, _text("a persona's name or the path of its file")),
    "count": (int, _whole("from 1", ge=1)),
    **_sampler_fields(),
    "seed": (int | None, _whole("from 0", ge=0)),
    "max_context": (int, _whole("from 1", ge=1)),
    "context": (str, _choice(CHOICES["context"])),
    "format": (str, _choice(CHOICES["format"])),
    "timing": (bool, _switch()),
    "profile": (bool, _switch()),
    "markdown": (bool, _switch()),
    "size": (str | None, _text("a folder's name, such as 7B; put it in quotes")),
    "gen": (str | None, _text("a LLaMA generation; put it in quotes")),
    "quantize": (Literal["int8"] | None, _choice(["int8"])),
    "eos": (list[str], _tokens()),
    "device": (str | None, _text("a device's name, or a part of it")),
    "require": (Literal["gpu", "cpu"] | None, _choice(["gpu", "cpu"])),
    "cache": (bool, _switch()),
    "log": (bool, _switch()),
    "log_to": (str | None, _text("the path of a folder, or of a file that ends in .md")),
}
Settings = create_model("Settings", __base__=_Strict, **_FIELDS)


def fault(values: dict[str, Any]) -> tuple[str, str] | None:
    """The first key whose value cannot stand, and a sentence about it; None where all is well."""
    try:
        Settings.model_validate(values)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        return key, _sentence(key, values[key])
    return None


def _sentence(key: str, value: Any) -> str:
    kind = {dict: "a mapping", list: "a list", type(None): "null", bool: str(value).lower()}.get(type(value), "")
    shown = kind or (repr(value) if isinstance(value, str) else str(value))
    allowed = Settings.model_fields[key].description
    return f"{key} must be {allowed}, not {shown[:_SHOWN]}"
