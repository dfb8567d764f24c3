"""State of a browser tab on the server."""

import time
from dataclasses import dataclass

from townhall.web.gradio_offline import gr


@dataclass
class TabState:
    """The chat that a tab of a browser shows: "" where nothing was said yet, None where that is not known.

    It is kept here, not asked of the browser, whose word is as old as the last answer that reached it. The page's address, which every
    request repeats, says it for a tab that just opened and for one that was forgotten: Gradio does so an hour after it was last heard of.
    """

    chat: str | None = None
    served_model: str = ""  # whom its lists of characters and models name; "" for the one that every page begins with
    said: tuple[str, str] | None = None  # what stood in the box when the last message was sent, and what its browser had seen by then
    asked: str = ""  # the chat that an open question is about
    taken: tuple[int, int] = (0, 0)  # a number for each time that words were taken out of the box, and how many UTF-16 units the last time

    def take(self, words: str) -> None:
        """They go out of the box, and only they: text added meanwhile is kept, so it is the page's script that does it."""
        self.taken = self.taken[0] + 1, len(words.encode("utf-16-le", "surrogatepass")) // 2


def known(tab: TabState, request: gr.Request) -> str:
    """The id of the chat that `tab` shows, by the page's address where it is not known otherwise; "" for none."""
    if tab.chat is None:
        tab.chat = str(request.query_params.get("chat") or "")
        tab.taken = (time.time_ns() // 1_000_000, 0)  # none that the page has heard before the tab was forgotten
    return tab.chat
