"""What happens when somebody presses something: each method answers with what the page shows then."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from ext.tinygrad.errors import TownhallError
from townhall.web import view
from townhall.web.asking import Asking
from townhall.web.chat import Chat
from townhall.web.client import Voice
from townhall.web.offline import gr
from townhall.web.prose import shortened
from townhall.web.shelf import Shelf

Shown = tuple[Any, ...]
SKIP = gr.skip()
EDITING = "editing"
MOST_NAMED = 24  # characters of a chat's name in a question about it
SEND, STOP = "Send", "Stop"  # what the one button beside the box says and does


@dataclass
class Tab:
    """The chat that a tab of a browser shows: "" where nothing was said yet, None where that is not known.

    It is kept here, not asked of the browser, whose word is as old as the last answer that reached it. The page's address, which every
    request repeats, says it for a tab that just opened and for one that was forgotten: Gradio does so an hour after it was last heard of.
    """

    chat: str | None = None
    voice: str = ""  # whom it is with


def _known(tab: Tab, request: gr.Request) -> str:
    """The id of the chat that `tab` shows, by the page's address where it is not known otherwise; "" for none."""
    if tab.chat is None:
        tab.chat = str(request.query_params.get("chat") or "")
    return tab.chat


class Events:
    """All that touches a chat runs on the one loop, so that nothing comes between two of its lines.

    `shown` is: version, facts, conversation, header, bar, problem, press, retry, undo, edit, characters, model.
    """

    def __init__(self, shelf: Shelf, first: str):
        self._shelf, self._first = shelf, first

    async def arrive(self, tab: Tab, request: gr.Request) -> Shown:
        """A tab opens. Somebody may have been quicker than this request; then it shows what came of that."""
        shows = _known(tab, request)
        voice = self._shelf.voice(tab.voice or self._first)
        try:
            chat = self._shelf.find(shows) if shows else None
        except TownhallError as error:
            return self._shown(tab, None, voice, str(error))
        return self._shown(tab, chat, chat.voice if chat else voice, chat.problem if chat else "")

    async def look(self, tab: Tab, seen: str, request: gr.Request) -> Any:
        """Once in a while: what another tab or another program did, or what came to the browser too late and stands there in the way."""
        _known(tab, request)
        chat = self._open(tab)
        if tab.chat and chat is None:
            return self._shown(tab, None, self._shelf.voice(self._first), "The chat that stood here was deleted.")
        if (chat.version if chat else "") == seen:
            return SKIP
        return self._shown(tab, chat, chat.voice if chat else self._shelf.voice(tab.voice), chat.problem or None if chat else None)

    async def press(self, says: str, tab: Tab, request: gr.Request, *said: Any) -> AsyncIterator[Shown]:
        """The button beside the box does what it said when it was pressed, whatever has come since."""
        if says == STOP:
            yield SKIP, SKIP, *await self.stop(tab)
            return
        async for shown in self.send(tab, request, *said):
            yield shown

    async def send(self, tab: Tab, request: gr.Request, text: str, editing: str, voice_id: str, *settings: Any) -> AsyncIterator[Shown]:
        """The message goes out and the answer comes in, piece by piece; while another one is being written it waits in the box."""
        if not text.strip():
            yield SKIP, SKIP, *([SKIP] * 12)
            return
        _known(tab, request)
        chat = self._open(tab) or self._shelf.begin(self._shelf.voice(voice_id))
        tab.chat = chat.id  # whoever presses twice means this one
        async for shown in self._asked(tab, chat, text, settings, instead=editing == EDITING):
            yield shown

    async def retry(self, tab: Tab, text: str, editing: str, voice_id: str, *settings: Any) -> AsyncIterator[Shown]:
        """The last question again, and another answer; a draft in the box stays there."""
        chat = self._open(tab)
        if chat and (exchanges := chat.exchanges()):
            async for shown in self._asked(tab, chat, exchanges[-1][0].text, settings, instead=True, draft=text):
                yield shown

    async def _asked(self, tab: Tab, chat: Chat, text: str, settings: Shown, instead: bool, draft: str = "") -> AsyncIterator[Shown]:
        if chat.live:
            yield SKIP, SKIP, *self._shown(tab, chat, chat.voice, None, briefly=True)
            return
        try:
            await chat.ask(text, Asking.from_page(*settings), instead)
        except TownhallError as error:
            if tab.chat == chat.id:
                yield SKIP, SKIP, *self._shown(tab, chat, chat.voice, str(error))
            return
        first = True
        async for _ in chat.changes():
            if tab.chat != chat.id:
                return  # it goes on without this tab
            yield draft if first else SKIP, "", *self._shown(tab, chat, chat.voice, "" if first else None, briefly=not first)
            first = False
        if tab.chat == chat.id:
            yield draft if first else SKIP, "", *self._shown(tab, chat, chat.voice, chat.problem)

    async def stop(self, tab: Tab) -> Shown:
        """Enough."""
        if (chat := self._open(tab)) is None:
            return (SKIP,) * 12
        await chat.stop()
        return self._shown(tab, chat, chat.voice, chat.problem)

    async def undo(self, tab: Tab, draft: str) -> Shown:
        """The last exchange goes; its question comes back into an empty box."""
        if (chat := self._open(tab)) is None:
            return (SKIP,) * 13
        try:
            question = chat.undo()
        except TownhallError as error:
            return SKIP, *self._shown(tab, chat, chat.voice, str(error))
        return draft or question, *self._shown(tab, chat, chat.voice, chat.problem)

    async def edit(self, tab: Tab) -> Shown:
        """The last question comes back into the box; sending it replaces the exchange."""
        chat = self._open(tab)
        if chat is None or not (exchanges := chat.exchanges()):
            return (SKIP,) * 14
        return exchanges[-1][0].text, EDITING, *self._shown(tab, chat, chat.voice, chat.problem, editing=True)

    async def new(self, tab: Tab, voice_id: str) -> Shown:
        """An empty page with the same character."""
        return "", "", *self._shown(tab, None, self._shelf.voice(voice_id))

    async def choose(self, tab: Tab, voice_id: str) -> Shown:
        """Another character: a new chat with that one; a draft stays."""
        return SKIP, "", *self._shown(tab, None, self._shelf.voice(voice_id))

    async def open(self, tab: Tab, wanted: str | None) -> Shown:
        """A chat of the list."""
        if not wanted:
            return (SKIP,) * 14
        try:
            chat = self._shelf.find(wanted)
        except TownhallError as error:
            return SKIP, SKIP, *([SKIP] * 5), view.problem(str(error)), *([SKIP] * 6)
        return "", "", *self._shown(tab, chat, chat.voice, chat.problem)

    def list(self, chosen: str | None) -> Shown:
        """The chats there are. What is chosen meanwhile stays chosen: only a chat that went away takes its choice along."""
        saved = self._shelf.saved()
        choices = [(f"{one.title or 'Empty'} · {one.persona}", one.id) for one in saved]
        if chosen and not any(chosen == one.id for one in saved):
            return gr.update(choices=choices, value=None), *([gr.update(interactive=False)] * 4)
        return gr.update(choices=choices), *([SKIP] * 4)

    def relist(self, chosen: str | None, stamp: str) -> Shown:
        """Once in a while: chats that another tab or another program began."""
        now = self._shelf.stamp
        return (now, *self.list(chosen)) if now != stamp else (SKIP,) * 6

    def pick(self) -> Shown:
        """A chat was chosen: something can be done with it."""
        return *([gr.update(interactive=True)] * 4), *self.put_away()

    def put_away(self) -> Shown:
        """No question stands open."""
        return self._aside("", None)

    def ask_title(self, chosen: str | None) -> Shown:
        """How is it to be called?"""
        return self._aside("renaming", chosen)

    async def rename(self, chosen: str | None, about: str, title: str) -> Shown:
        """So."""
        try:
            self._shelf.find(about).rename(" ".join(title.split())[:120])
        except TownhallError as error:
            return *([SKIP] * 11), view.problem(str(error))
        return *self.list(chosen), *self.put_away(), ""

    def ask_sure(self, chosen: str | None) -> Shown:
        """Deleting cannot be undone."""
        return self._aside("deleting", chosen)

    async def delete(self, tab: Tab, chosen: str | None, about: str, voice_id: str) -> Shown:
        """Gone; a tab that shows it begins a new chat."""
        try:
            self._shelf.delete(about)
        except TownhallError as error:
            shown = (*([SKIP] * 5), view.problem(str(error)), *([SKIP] * 6))
        else:
            shown = self._shown(tab, None, self._shelf.voice(voice_id)) if about == tab.chat else (SKIP,) * 12
        return *self.list(chosen), *self.put_away(), *shown

    def export(self, chosen: str | None) -> Shown:
        """Two files to be had."""
        return self._aside("exports", chosen)

    def _aside(self, question: str, about: str | None) -> Shown:
        """One question at a time, about the chat that it names: renaming, deleting, exports, the new name, the last word, the id."""
        title = next((one.title for one in self._shelf.saved() if one.id == about), "") if about else ""
        name = shortened(title, MOST_NAMED) or "Empty"
        return (
            gr.update(visible=question == "renaming"),
            gr.update(visible=question == "deleting"),
            gr.update(visible=question == "exports", value=view.exports(about or "")),
            gr.update(value=title, label=f"New name for “{name}”"),
            gr.update(value=f"Delete “{name}” for good"),
            about or "",
        )

    def _open(self, tab: Tab) -> Chat | None:
        if not tab.chat:
            return None
        try:
            return self._shelf.find(tab.chat)
        except TownhallError:
            return None

    def _shown(
        self, tab: Tab, chat: Chat | None, voice: Voice, problem: str | None = "", briefly: bool = False, editing: bool = False
    ) -> Shown:
        """`problem` None leaves what stands there; `briefly` leaves what does not change while a reply is written."""
        tab.chat, tab.voice = chat.id if chat else "", voice.id
        busy, said = bool(chat and chat.live), bool(chat and chat.exchanges())
        again = gr.update(interactive=said and not busy)
        stoppable = bool(chat and chat.live and chat.live.lasting)
        remark = view.remark("Editing your last message: Send replaces it and its answer.") if editing else ""
        return (
            chat.version if chat else "",
            view.facts(chat, voice),
            gr.update(value=view.conversation(chat, voice), elem_classes=["growing"] if busy else []),
            SKIP if briefly else view.header(voice),
            SKIP if briefly else view.bar(chat),
            SKIP if problem is None else view.problem(problem) or remark,
            gr.update(value=STOP, variant="stop") if stoppable else gr.update(value=SEND, variant="primary"),
            *([SKIP] * 3 if briefly else [again] * 3),
            SKIP if briefly else voice.id,
            SKIP if briefly else voice.id,
        )
