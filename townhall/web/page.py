"""The page: what stands where, and which of its parts asks for what."""

from typing import Any

from app.sampler_settings import DECLARED
from townhall.context.strategies import STRATEGIES
from townhall.web.chat_store import LONGEST_NAME, ChatStore
from townhall.web.gradio_offline import gr
from townhall.web.growing_list import Choice
from townhall.web.handlers import SEND, Handlers
from townhall.web.sampling_controls import PLAIN, SLIDERS, SamplingControls, as_text
from townhall.web.tab_state import TabState
from townhall.web.view import names, served_models

BRAND = (
    '<div class="brand"><a href="./"><img src="own/favicon.svg" alt="" width="28" height="28"><span>Townhall</span></a>'
    '<button id="theme" type="button" aria-pressed="false" aria-label="Dark page"><span aria-hidden="true">◐</span></button></div>'
)


def _control(name: str, value: Any) -> gr.Slider | gr.Textbox:
    declared = DECLARED[name]
    if declared.kind is tuple:
        return gr.Textbox(as_text(value), label=declared.label, info=declared.info, max_length=10_000, interactive=True)
    least, most, step = declared.slider
    return gr.Slider(least, max(most, value), value, step=step, label=declared.label, info=declared.info, interactive=True)


def build(chat_store: ChatStore, first: str, plain: SamplingControls = PLAIN) -> gr.Blocks:
    """The page over `chat_store`; `first` is the model id that a new chat begins with, `plain` what the settings say at first."""
    with gr.Blocks(title="Townhall", analytics_enabled=False, fill_height=True, fill_width=True) as page:
        seen, editing, stamp, about = (gr.Textbox(visible=False) for _ in range(4))
        tab = gr.State(TabState())
        facts = gr.Markdown(elem_id="facts-box", sanitize_html=False, container=False)
        with gr.Sidebar(width=300, elem_id="side"):
            gr.Markdown(BRAND, sanitize_html=False, elem_id="brand", container=False)
            gr.Markdown(served_models(chat_store.served_models), sanitize_html=False, elem_id="voices-box", container=False)
            new = gr.Button("New chat", elem_id="new", variant="secondary")
            characters = gr.Radio(names(chat_store.served_models), value=first, label="Characters", elem_id="characters", interactive=True)
            chats = Choice([], label="Chats", elem_id="chats", interactive=True)
            with gr.Row(elem_id="chat-actions"):
                open_, rename, delete, export = (
                    gr.Button(name, size="sm", interactive=False, min_width=40, elem_id=f"{name.lower()}-chat")
                    for name in ("Open", "Rename", "Delete", "Export")
                )
            picked = gr.Button("Open the picked chat", elem_id="open-picked", visible="hidden")  # for who does not wait for "Open"
            with gr.Column(elem_id="asides", min_width=40):
                with gr.Row(elem_id="renaming", visible=False) as renaming:
                    title = gr.Textbox(label="New name", max_length=LONGEST_NAME, elem_id="title")
                    save_title, keep_title = gr.Button("Save name", size="sm"), gr.Button("Cancel", size="sm")
                with gr.Row(elem_id="deleting", visible=False) as deleting:
                    sure = gr.Button("Delete for good", size="sm", variant="stop")
                    keep = gr.Button("Keep", size="sm")
                exports = gr.Markdown(elem_id="exports", sanitize_html=False, container=False, visible=False)
            with gr.Accordion("Settings", open=False, elem_id="settings"):
                model = gr.Dropdown(
                    [served_model.id for served_model in chat_store.served_models], value=first, label="Model", interactive=True
                )
                strategies = [(f"{name}: {strategy.label}", name) for name, strategy in STRATEGIES.items()]
                controls = {name: _control(name, getattr(plain, name)) for name in SLIDERS if not DECLARED[name].rare}
                others = [
                    gr.Textbox(
                        "" if plain.seed is None else str(plain.seed),
                        label="Seed",
                        info="a whole number; empty: another one each time",
                        max_length=18,
                        interactive=True,
                    ),
                    gr.Slider(
                        min(16, plain.max_tokens),
                        max(2048, plain.max_tokens),
                        plain.max_tokens,
                        step=16,
                        label="Max tokens",
                        info="in an answer",
                        interactive=True,
                    ),
                    gr.Dropdown(strategies, value=plain.context, label="Context", interactive=True),
                ]
                with gr.Accordion("More samplers", open=False, elem_id="more-samplers"):
                    controls |= {name: _control(name, getattr(plain, name)) for name in SLIDERS if DECLARED[name].rare}
                settings = [*(controls[name] for name in SLIDERS), *others]
        with gr.Column(elem_id="main"):
            header = gr.Markdown(elem_id="header", sanitize_html=False, container=False)
            conversation = gr.Chatbot(
                label="Conversation", show_label=False, elem_id="conversation", container=False, buttons=[], height="100%",
                latex_delimiters=[], allow_tags=False, layout="bubble", group_consecutive_messages=False,
            )  # fmt: skip
            problem = gr.Markdown(elem_id="problem", sanitize_html=False, container=False)
            with gr.Row(elem_id="composer"):
                box = gr.Textbox(
                    label="Message", placeholder="Say something", lines=1, max_lines=8, container=False, autofocus=True,
                    interactive=True, elem_id="message", scale=1,
                )  # fmt: skip
                press = gr.Button(SEND, variant="primary", elem_id="press", scale=0, min_width=96)
            halt = gr.Button("Stop the reply", elem_id="halt", visible="hidden")  # for Escape, which need not wait for "Stop"
            with gr.Row(elem_id="foot"):
                with gr.Row(elem_id="again"):
                    retry, undo, edit = (
                        gr.Button(name, size="sm", interactive=False, scale=0, min_width=64) for name in ("Retry", "Undo", "Edit")
                    )
                bar = gr.Markdown(elem_id="bar", sanitize_html=False, container=False)
        tick, slow = gr.Timer(1.0), gr.Timer(4.0)

        shown = [seen, facts, conversation, header, bar, problem, press, retry, undo, edit, characters, model]
        do = Handlers(chat_store, first)
        quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        said = [tab, seen, box, editing, characters, *settings]
        outputs = [box, editing, *shown]
        showing = [
            box.submit(do.send, said, outputs, trigger_mode="multiple", **quiet),
            press.click(do.press, [press, *said], outputs, trigger_mode="multiple", **quiet),
            retry.click(do.retry, [tab, *settings], outputs, **quiet),
            tick.tick(do.look, [tab, seen], shown, **quiet),
        ]
        halt.click(do.stop, [tab], shown, **quiet)
        # what was on its way to the page must not come after what is shown next; of what is chosen meanwhile the last counts
        leaving: dict[str, Any] = {**quiet, "cancels": showing, "trigger_mode": "always_last"}
        undo.click(do.undo, [tab, box], [box, *shown], **quiet)
        edit.click(do.edit, [tab], outputs, **quiet)
        new.click(do.new, [tab, box, characters], outputs, **leaving)
        characters.input(do.choose, [tab, characters], outputs, **leaving)
        model.input(do.choose_model, [tab, model], outputs, **leaving)
        listed = [chats, open_, rename, delete, export]
        asides = [renaming, deleting, exports, title, sure, about]
        page.load(do.arrive, [tab], shown, **quiet)
        page.load(do.list, [chats], listed, **quiet)
        slow.tick(do.relist, [chats, stamp], [stamp, *listed], **quiet)
        seen.change(do.list, [chats], listed, **quiet)
        chats.input(do.pick, [tab, chats], [open_, rename, delete, export, *asides], **quiet)
        gr.on([open_.click, picked.click], do.open, [tab, box, chats], outputs, **leaving)
        rename.click(do.ask_title, [tab, chats], asides, **quiet)
        gr.on([save_title.click, title.submit], do.rename, [tab, chats, about, title], [*listed, *asides, problem], **quiet)
        delete.click(do.ask_sure, [tab, chats], asides, **quiet)
        gr.on([keep.click, keep_title.click], do.put_away, [tab], asides, **quiet)
        sure.click(do.delete, [tab, chats, about, characters], [*listed, *asides, *shown], **quiet)
        export.click(do.export, [tab, chats], asides, **quiet)
    page.queue(default_concurrency_limit=None, api_open=False)
    return page
