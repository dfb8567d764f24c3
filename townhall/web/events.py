"""What happens when somebody presses something: each method answers with what the page shows then."""

from collections.abc import AsyncIterator
from typing import Any

from ext.tinygrad.errors import TownhallError
from townhall.web import view
from townhall.web.asking import Asking
from townhall.web.chat import Chat
from townhall.web.client import Voice
from townhall.web.offline import gr
from townhall.web.shelf import Shelf

Shown = tuple[Any, ...]
SKIP = gr.skip()
EDITING = "editing"


class Events:
    """All that touches a chat runs on the one loop, so that nothing comes between two of its lines.

    `shown` is: chat id, version, facts, conversation, header, bar, problem, stop, retry, undo, edit, characters, model.
    """

    def __init__(self, shelf: Shelf, first: str):
        self._shelf, self._first = shelf, first

    async def arrive(self, request: gr.Request) -> Shown:
        """A tab opens; `?chat=` names what it shows."""
        wanted = str(request.query_params.get("chat") or "")
        try:
            chat = self._shelf.find(wanted) if wanted else None
        except TownhallError as error:
            return self._shown(None, self._shelf.voice(self._first), str(error))
        return self._shown(chat, chat.voice if chat else self._shelf.voice(self._first), chat.problem if chat else "")

    async def look(self, chat_id: str, seen: str) -> Any:
        """Once in a while: what another tab or another program did."""
        if not chat_id:
            return SKIP
        chat = self._open(chat_id)
        if chat is None:
            return self._shown(None, self._shelf.voice(self._first), "The chat that stood here was deleted.")
        if chat.version == seen:
            return SKIP
        return self._shown(chat, chat.voice, chat.problem or None)

    async def send(self, text: str, chat_id: str, editing: str, voice_id: str, *settings: Any) -> AsyncIterator[Shown]:
        """The message goes out and the answer comes in, piece by piece."""
        if not text.strip():
            yield SKIP, SKIP, *([SKIP] * 13)
            return
        chat = self._open(chat_id) or self._shelf.begin(self._shelf.voice(voice_id))
        async for shown in self._asked(chat, text, settings, instead=editing == EDITING):
            yield shown

    async def retry(self, text: str, chat_id: str, editing: str, voice_id: str, *settings: Any) -> AsyncIterator[Shown]:
        """The last question again, and another answer; a draft in the box stays there."""
        chat = self._open(chat_id)
        if chat and (exchanges := chat.exchanges()):
            async for shown in self._asked(chat, exchanges[-1][0].text, settings, instead=True, draft=text):
                yield shown

    async def _asked(self, chat: Chat, text: str, settings: Shown, instead: bool, draft: str = "") -> AsyncIterator[Shown]:
        try:
            await chat.ask(text, Asking.from_page(*settings), instead)
        except TownhallError as error:
            yield SKIP, SKIP, *self._shown(chat, chat.voice, str(error))
            return
        first = True
        async for _ in chat.changes():
            yield draft if first else SKIP, "", *self._shown(chat, chat.voice, "" if first else None, briefly=not first)
            first = False
        yield draft if first else SKIP, "", *self._shown(chat, chat.voice, chat.problem)

    async def stop(self, chat_id: str) -> Shown:
        """Enough."""
        if (chat := self._open(chat_id)) is None:
            return (SKIP,) * 13
        await chat.stop()
        return self._shown(chat, chat.voice, chat.problem)

    async def undo(self, chat_id: str, draft: str) -> Shown:
        """The last exchange goes; its question comes back into an empty box."""
        if (chat := self._open(chat_id)) is None:
            return (SKIP,) * 14
        try:
            question = chat.undo()
        except TownhallError as error:
            return SKIP, *self._shown(chat, chat.voice, str(error))
        return draft or question, *self._shown(chat, chat.voice, chat.problem)

    async def edit(self, chat_id: str) -> Shown:
        """The last question comes back into the box; sending it replaces the exchange."""
        chat = self._open(chat_id)
        if chat is None or not (exchanges := chat.exchanges()):
            return (SKIP,) * 15
        return exchanges[-1][0].text, EDITING, *self._shown(chat, chat.voice, chat.problem, editing=True)

    def new(self, voice_id: str) -> Shown:
        """An empty page with the same character."""
        return "", "", *self._shown(None, self._shelf.voice(voice_id))

    def choose(self, voice_id: str) -> Shown:
        """Another character: a new chat with that one; a draft stays."""
        return SKIP, "", *self._shown(None, self._shelf.voice(voice_id))

    async def open(self, wanted: str | None) -> Shown:
        """A chat of the list."""
        if not wanted:
            return (SKIP,) * 15
        try:
            chat = self._shelf.find(wanted)
        except TownhallError as error:
            return SKIP, SKIP, *([SKIP] * 6), view.problem(str(error)), *([SKIP] * 6)
        return "", "", *self._shown(chat, chat.voice, chat.problem)

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
        """No question stands open: renaming, deleting, exports, the new name."""
        return gr.update(visible=False), gr.update(visible=False), gr.update(visible=False), SKIP

    def ask_title(self, chosen: str | None) -> Shown:
        """How is it to be called?"""
        title = next((one.title for one in self._shelf.saved() if one.id == chosen), "")
        return gr.update(visible=True), gr.update(visible=False), gr.update(visible=False), title

    async def rename(self, chosen: str | None, title: str) -> Shown:
        """So."""
        try:
            self._shelf.find(chosen or "").rename(" ".join(title.split())[:120])
        except TownhallError as error:
            return *([SKIP] * 9), view.problem(str(error))
        return *self.list(chosen), *self.put_away(), ""

    def ask_sure(self) -> Shown:
        """Deleting cannot be undone."""
        return gr.update(visible=False), gr.update(visible=True), gr.update(visible=False), SKIP

    async def delete(self, chosen: str | None, chat_id: str, voice_id: str) -> Shown:
        """Gone; a tab that shows it begins a new chat."""
        try:
            self._shelf.delete(chosen or "")
        except TownhallError as error:
            shown = (*([SKIP] * 6), view.problem(str(error)), *([SKIP] * 6))
        else:
            shown = self._shown(None, self._shelf.voice(voice_id)) if chosen == chat_id else (SKIP,) * 13
        return *self.list(chosen), *self.put_away(), *shown

    def export(self, chosen: str | None) -> Shown:
        """Two files to be had."""
        return gr.update(visible=False), gr.update(visible=False), gr.update(visible=True, value=view.exports(chosen or "")), SKIP

    def _open(self, chat_id: str) -> Chat | None:
        if not chat_id:
            return None
        try:
            return self._shelf.find(chat_id)
        except TownhallError:
            return None

    def _shown(self, chat: Chat | None, voice: Voice, problem: str | None = "", briefly: bool = False, editing: bool = False) -> Shown:
        """`problem` None leaves what stands there; `briefly` leaves what does not change while a reply is written."""
        busy, said = bool(chat and chat.live), bool(chat and chat.exchanges())
        again = gr.update(interactive=said and not busy)
        remark = view.remark("Editing your last message: Send replaces it and its answer.") if editing else ""
        return (
            chat.id if chat else "",
            chat.version if chat else "",
            view.facts(chat, voice),
            view.conversation(chat, voice),
            SKIP if briefly else view.header(voice),
            SKIP if briefly else view.bar(chat),
            SKIP if problem is None else view.problem(problem) or remark,
            gr.update(visible=busy),
            *([SKIP] * 3 if briefly else [again] * 3),
            SKIP if briefly else voice.id,
            SKIP if briefly else voice.id,
        )
