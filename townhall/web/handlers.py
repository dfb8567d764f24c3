"""Event handlers of the page: each returns what the page shows then."""

from collections.abc import AsyncIterator
from typing import Any

from ext.tinygrad.errors import TownhallError
from townhall.web import view
from townhall.web.chat_store import LONGEST_NAME, ChatStore
from townhall.web.client import ModelChoice
from townhall.web.gradio_offline import gr
from townhall.web.live_chat import LiveChat
from townhall.web.safe_markdown import shortened
from townhall.web.sampling_controls import SamplingControls
from townhall.web.tab_state import TabState, known

Shown = tuple[Any, ...]
SKIP = gr.skip()
EDITING = "editing"
MOST_NAMED = 24  # characters of a chat's name in a question about it
SEND, STOP = "Send", "Stop"  # what the one button beside the box says and does


class Handlers:
    """All that touches a chat runs on the one loop, so that nothing comes between two of its lines.

    `shown` is: version, facts, conversation, header, bar, problem, press, retry, undo, edit, characters, model.
    """

    def __init__(self, chat_store: ChatStore, first: str):
        self._chat_store, self._first = chat_store, first

    async def arrive(self, tab: TabState, request: gr.Request) -> Shown:
        """A tab opens. Another event may have been quicker than this request; then it shows what came of that."""
        shows = known(tab, request)
        served_model = self._served_model(tab)
        try:
            chat = self._chat_store.find(shows) if shows else None
        except TownhallError as error:
            return self._shown(tab, None, served_model, str(error))
        return self._shown(tab, chat, chat.served_model if chat else served_model, chat.problem if chat else "")

    async def look(self, tab: TabState, seen: str, request: gr.Request) -> Any:
        """Once in a while: what another tab or another program did, or what came to the browser too late and stands there in the way."""
        known(tab, request)
        chat = self._open(tab)
        if tab.chat and chat is None:
            return self._shown(tab, None, self._served_model(tab), "The chat that stood here was deleted.")
        if (chat.version if chat else "") == (seen or ""):
            return SKIP
        return self._shown(tab, chat, chat.served_model if chat else self._served_model(tab), chat.problem or None if chat else None)

    async def press(self, says: str, tab: TabState, request: gr.Request, *said: Any) -> AsyncIterator[Shown]:
        """The button beside the box does what it said when it was pressed, whatever has come since."""
        if says == STOP:
            yield SKIP, SKIP, *await self.stop(tab)
            return
        async for shown in self.send(tab, request, *said):
            yield shown

    async def send(
        self, tab: TabState, request: gr.Request, seen: str, text: str, editing: str, model_id: str, *settings: Any
    ) -> AsyncIterator[Shown]:
        """The message goes out and the answer comes in, piece by piece; while another one is being written it waits in the box.

        A browser that has not yet heard that its last message was taken has that in its box: pressing twice asks once.
        """
        known(tab, request)
        seen = seen or ""  # None where the page has heard nothing yet
        words = text.removeprefix(tab.said[0]) if tab.said and tab.said[1] == seen else text
        if not words.strip():
            yield SKIP, SKIP, *([SKIP] * 12)
            return
        chat = self._open(tab) or self._chat_store.begin(self._chat_store.served_model(model_id))
        tab.chat = chat.id  # a second press means this one
        async for shown in self._asked(tab, chat, words, settings, instead=editing == EDITING, sent=(text, seen)):
            yield shown

    async def retry(self, tab: TabState, *settings: Any) -> AsyncIterator[Shown]:
        """The last question again, and another answer; a draft in the box stays there."""
        chat = self._open(tab)
        if chat and (exchanges := chat.exchanges()):
            async for shown in self._asked(tab, chat, exchanges[-1][0].text, settings, instead=True):
                yield shown

    async def _asked(
        self, tab: TabState, chat: LiveChat, text: str, settings: Shown, instead: bool, sent: tuple[str, str] | None = None
    ) -> AsyncIterator[Shown]:
        if chat.live:
            yield SKIP, SKIP, *self._shown(tab, chat, chat.served_model, None, briefly=True)
            return
        try:
            await chat.ask(text, SamplingControls.from_page(*settings), instead)
        except TownhallError as error:
            if tab.chat == chat.id:
                yield SKIP, SKIP, *self._shown(tab, chat, chat.served_model, str(error))
            return
        if sent and tab.chat == chat.id:
            tab.said = sent
            tab.take(text)
        first = True
        async for _ in chat.changes():
            if tab.chat != chat.id:
                return  # it goes on without this tab
            yield SKIP, "", *self._shown(tab, chat, chat.served_model, "" if first else None, briefly=not first)
            first = False
        if tab.chat == chat.id:
            yield SKIP, "", *self._shown(tab, chat, chat.served_model, chat.problem)

    async def stop(self, tab: TabState) -> Shown:
        """Enough."""
        if (chat := self._open(tab)) is None:
            return (SKIP,) * 12
        await chat.stop()
        return self._shown(tab, chat, chat.served_model, chat.problem)

    async def undo(self, tab: TabState, draft: str) -> Shown:
        """The last exchange goes; its question comes back into an empty box."""
        if (chat := self._open(tab)) is None:
            return (SKIP,) * 13
        try:
            question = chat.undo()
        except TownhallError as error:
            return SKIP, *self._shown(tab, chat, chat.served_model, str(error))
        return SKIP if draft else question, *self._shown(tab, chat, chat.served_model, chat.problem)

    async def edit(self, tab: TabState) -> Shown:
        """The last question comes back into the box; sending it replaces the exchange."""
        chat = self._open(tab)
        if chat is None or not (exchanges := chat.exchanges()):
            return (SKIP,) * 14
        return exchanges[-1][0].text, EDITING, *self._shown(tab, chat, chat.served_model, chat.problem, editing=True)

    async def new(self, tab: TabState, draft: str, model_id: str) -> Shown:
        """An empty page with the same character."""
        tab.take(draft)
        return SKIP, "", *self._shown(tab, None, self._chat_store.served_model(model_id))

    async def choose(self, tab: TabState, model_id: str) -> Shown:
        """Another character: a new chat with that one; a draft stays. Who has gone on to the next one meanwhile is not led back."""
        return SKIP, "", *self._shown(tab, None, self._chat_store.served_model(model_id))[:-2], SKIP, model_id

    async def choose_model(self, tab: TabState, model_id: str) -> Shown:
        """The same, said in the settings."""
        *shown, character, model = await self.choose(tab, model_id)
        return *shown, model, character

    async def open(self, tab: TabState, draft: str, wanted: str | None) -> Shown:
        """A chat of the list."""
        if not wanted:
            return (SKIP,) * 14
        try:
            chat = self._chat_store.find(wanted)
        except TownhallError as error:
            return SKIP, SKIP, *([SKIP] * 5), view.problem(str(error)), *([SKIP] * 6)
        tab.take(draft)
        return SKIP, "", *self._shown(tab, chat, chat.served_model, chat.problem)

    def list(self, chosen: str | None) -> Shown:
        """The chats there are. What is chosen meanwhile stays chosen: only a chat that went away takes its choice along."""
        saved = self._chat_store.saved()
        choices = [(f"{one.title or 'Empty'} · {one.persona}", one.id) for one in saved]
        if chosen and not any(chosen == one.id for one in saved):
            return gr.update(choices=choices, value=None), *([gr.update(interactive=False)] * 4)
        return gr.update(choices=choices), *([SKIP] * 4)

    def relist(self, chosen: str | None, stamp: str) -> Shown:
        """Once in a while: chats that another tab or another program began."""
        now = self._chat_store.stamp
        return (now, *self.list(chosen)) if now != stamp else (SKIP,) * 6

    def pick(self, tab: TabState, chosen: str | None) -> Shown:
        """A chat was chosen: something can be done with it, and a question about another one is void."""
        return *([gr.update(interactive=True)] * 4), *([SKIP] * 6 if chosen and tab.asked == chosen else self.put_away(tab))

    def put_away(self, tab: TabState) -> Shown:
        """No question stands open."""
        return self._aside(tab, "", None)

    def ask_title(self, tab: TabState, chosen: str | None) -> Shown:
        """How is it to be called?"""
        return self._aside(tab, "renaming", chosen)

    async def rename(self, tab: TabState, chosen: str | None, about: str, title: str) -> Shown:
        """So."""
        try:
            self._chat_store.find(about).rename(" ".join(title.split())[:LONGEST_NAME])
        except TownhallError as error:
            return *([SKIP] * 11), view.problem(str(error))
        return *self.list(chosen), *self.put_away(tab), ""

    def ask_sure(self, tab: TabState, chosen: str | None) -> Shown:
        """Deleting cannot be undone."""
        return self._aside(tab, "deleting", chosen)

    async def delete(self, tab: TabState, chosen: str | None, about: str, model_id: str) -> Shown:
        """Gone; a tab that shows it begins a new chat."""
        try:
            self._chat_store.delete(about)
        except TownhallError as error:
            shown = (*([SKIP] * 5), view.problem(str(error)), *([SKIP] * 6))
        else:
            shown = self._shown(tab, None, self._chat_store.served_model(model_id)) if about == tab.chat else (SKIP,) * 12
        return *self.list(chosen), *self.put_away(tab), *shown

    def export(self, tab: TabState, chosen: str | None) -> Shown:
        """Two files to be had."""
        return self._aside(tab, "exports", chosen)

    def _aside(self, tab: TabState, question: str, about: str | None) -> Shown:
        """One question at a time, about the chat that it names: renaming, deleting, exports, the new name, the last word, the id."""
        tab.asked = about or ""
        title = next((one.name for one in self._chat_store.saved() if one.id == about), "") if about else ""
        name = shortened(title, MOST_NAMED) or "Empty"
        return (
            gr.update(visible=question == "renaming"),
            gr.update(visible=question == "deleting"),
            gr.update(visible=question == "exports", value=view.exports(about or "")),
            gr.update(value=title, label=f"New name for “{name}”"),
            gr.update(value=f"Delete “{name}” for good"),
            about or "",
        )

    def _served_model(self, tab: TabState) -> ModelChoice:
        return self._chat_store.served_model(tab.served_model or self._first)

    def _open(self, tab: TabState) -> LiveChat | None:
        if not tab.chat:
            return None
        try:
            return self._chat_store.find(tab.chat)
        except TownhallError:
            return None

    def _shown(
        self,
        tab: TabState,
        chat: LiveChat | None,
        served_model: ModelChoice,
        problem: str | None = "",
        briefly: bool = False,
        editing: bool = False,
    ) -> Shown:
        """`problem` None leaves what stands there; `briefly` leaves what does not change while a reply is written.

        The lists of characters and models are left alone where they say it already: the next one may be being chosen.
        """
        info = SKIP if served_model.id == (tab.served_model or self._first) else served_model.id
        if tab.chat != (chat.id if chat else ""):
            tab.said = None  # what was seen of another chat says nothing about this one
        tab.chat, tab.served_model = chat.id if chat else "", served_model.id
        busy, said = bool(chat and chat.live), bool(chat and chat.exchanges())
        again = gr.update(interactive=said and not busy)
        stoppable = bool(chat and chat.live and chat.live.lasting)
        remark = view.remark("Editing your last message: Send replaces it and its answer.") if editing else ""
        return (
            chat.version if chat else "",
            view.facts(chat, served_model, tab.taken),
            gr.update(value=view.conversation(chat, served_model), elem_classes=["growing"] if busy else []),
            SKIP if briefly else view.header(served_model),
            SKIP if briefly else view.bar(chat),
            SKIP if problem is None else view.problem(problem) or remark,
            gr.update(value=STOP, variant="stop") if stoppable else gr.update(value=SEND, variant="primary"),
            *([SKIP] * 3 if briefly else [again] * 3),
            info,
            info,
        )
