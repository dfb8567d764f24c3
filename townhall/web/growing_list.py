"""A list to choose from that may grow while it is open."""

from abc import ABCMeta
from typing import Any

from townhall.web.gradio_offline import gr


def _as_sent(self: Any, payload: object) -> str | None:
    return str(payload) if payload else None


# Gradio refuses what is not in the list as it was when the tab last heard of it, while another tab may have added to it or taken from it;
# the handler checks the choice. Made past Gradio's metaclass, which would write a .pyi beside this file.
Choice: Any = ABCMeta.__new__(type(gr.Radio), "Radio", (gr.Radio,), {"preprocess": _as_sent})
