"""What every request body is made of: types as clients write them, and a bound on how much of a body is looked at."""

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from app.sampler_settings import DECLARED, MOST_TEXTS

# entries that are looked at at all: a body of 1 MB can hold half a million, and each wrong one would cost an error message
LONGEST = {
    "messages": 1 << 14,
    "content": 1 << 10,
    "prompt": 1 << 16,
    "input": 1 << 14,
    "tokens": 1 << 16,
    "logit_bias": 1 << 10,
    "modalities": 8,
    "lora": 64,
    "tools": 128,
    "functions": 128,
    "tool_calls": 128,
}
LONGEST |= {name: MOST_TEXTS for name, declared in DECLARED.items() if declared.kind is tuple}


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


T = TypeVar("T")
FLOATS = BeforeValidator(_whole)  # 5.0 is 5, as in JSON Schema: some clients have no other numbers
MaxTokens = Annotated[int, Field(ge=-(1 << 31), le=1 << 31), FLOATS]  # below 0: as many as the window holds, as llama.cpp has it
Id = Annotated[int, FLOATS]
Listed = Annotated[list[T], Field(fail_fast=True)]  # one wrong entry is enough


class RequestModel(BaseModel):
    """Unknown fields are tolerated, wrong types are not."""

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)

    @model_validator(mode="before")
    @classmethod
    def _not_too_long(cls, data: Any) -> Any:
        for name, most in LONGEST.items():
            value = data.get(name) if isinstance(data, dict) else None
            if isinstance(value, list | dict) and len(value) > most:
                info = {"name": name, "entries": len(value), "most": most}
                raise PydanticCustomError("too_many", "{name} has {entries} entries, more than the {most} that are read", info)
        return data
