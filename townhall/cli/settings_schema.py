"""What a settings file may hold. pydantic is imported here only: it costs as much time as the rest of a start without a model."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from app.sampler_settings import DECLARED, LONGEST_TEXT, MOST_TEXTS
from townhall.cli.chat_options import OPTIONS, Option

_SHOWN = 40  # characters of a wrong value
_MOST = 64  # entries of a list


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


def _sampler_fields() -> dict[str, Any]:
    nullable = {"repeat_penalty"}  # null: it depends on what is asked for
    found: dict[str, Any] = {}
    for name, declared in DECLARED.items():
        if declared.kind is tuple:
            texts = list[Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]]
            found[name] = (texts, Field(default=None, description=declared.description, max_length=MOST_TEXTS))
            continue
        bounds: dict[str, Any] = {**declared.bounds} if declared.kind is int else {**declared.bounds, "allow_inf_nan": False}
        declaration = Field(default=None, description=declared.description, **bounds)
        found[name] = (declared.kind | None if name in nullable else declared.kind, declaration)
    return found


def _field(option: Option) -> tuple[Any, Any]:
    kind: Any = str if option.kind not in (int, bool) else option.kind
    bounds: dict[str, Any] = {} if option.kind is bool or option.choices else {"min_length": 1}
    if option.choices:
        kind = Literal[option.choices]
    elif option.kind is int:
        bounds = {"ge": option.least}
    elif option.repeated:
        kind, bounds = list[str], {"max_length": _MOST}
    return kind | None if option.optional else kind, Field(default=None, description=option.description, **bounds)


_FIELDS: dict[str, Any] = {**_sampler_fields(), **{name: _field(one) for name, one in OPTIONS.items() if not one.flag_alone}}
Settings = create_model("Settings", __base__=_Strict, **_FIELDS)  # every key that a file may hold


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
