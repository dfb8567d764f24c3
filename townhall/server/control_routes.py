"""GET /townhall/controls: the sampler settings that a request may name, their ranges, and what holds where it does not say."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from app.sampler_settings import DECLARED, Declared
from townhall import __version__
from townhall.context.strategies import STRATEGIES
from townhall.server.endpoints import COUNT, TEXT, Endpoint, EndpointGroup, listed, schema
from townhall.server.guard import json_response
from townhall.server.service import Service

KINDS = {int: "int", float: "float", tuple: "texts"}
_NUMBER = {"type": "number"}


def _control(name: str, declared: Declared, value: Any) -> dict[str, Any]:
    least, most, step = declared.slider
    return {
        "name": name,
        "kind": KINDS[declared.kind],
        "label": declared.label,
        "info": declared.info,
        "allowed": declared.description,
        "default": list(value) if isinstance(value, tuple) else value,
        "min": least,
        "max": most,
        "step": step,
        "rare": declared.rare,
    }


class ControlRoutes:
    """What a page needs to know to offer settings."""

    def __init__(self, service: Service):
        self._service = service

    def group(self) -> EndpointGroup:
        """The endpoint and its schemas."""
        control = schema(
            {"name": TEXT, "kind": {"enum": list(KINDS.values())}, "label": TEXT, "allowed": TEXT, "default": {}},
            info={"type": ["string", "null"]},
            rare={"type": "boolean"},
            **dict.fromkeys(("min", "max", "step"), _NUMBER),
        )
        controls = schema(
            {
                "controls": listed(control),
                "model": TEXT,
                "seed": {"type": ["integer", "null"]},
                "max_tokens": COUNT,
                "context": TEXT,
                "strategies": listed(schema({"name": TEXT, "label": TEXT})),
                "version": TEXT,
            }
        )
        endpoint = Endpoint("GET", "/townhall/controls", self.controls, "Settings that requests may name.", "Controls")
        return EndpointGroup([endpoint], {"Controls": controls})

    async def controls(self, request: Request) -> Response:
        """GET /townhall/controls, in the order in which they are offered."""
        ids = [served_model.id for served_model in self._service.served_models]
        opened, options = self._service.opened, self._service.options
        assert opened
        shown = sorted(DECLARED.items(), key=lambda one: one[1].place)
        return json_response(
            {
                "controls": [_control(name, declared, getattr(opened.sampling, name)) for name, declared in shown],
                "model": options.first if options.first in ids else ids[0],
                "seed": opened.sampling.seed,
                "max_tokens": options.max_tokens,
                "context": options.context,
                "strategies": [{"name": name, "label": strategy.label} for name, strategy in STRATEGIES.items()],
                "version": __version__,
            }
        )
