// The chat: its head, the conversation, and the composer; the drawer with settings beside it.
import { html, useCallback, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./html.js";
import { Face, Button, IconButton, SideToggle, Spinner } from "./components.js";
import { Composer } from "./composer.js";
import { ContextBar } from "./context_bar.js";
import { carryOn, choose, lastMessage, need, open, placeOf, problem, remove, rowsOf, speaker, stop } from "./chat_state.js";
import { modelOf, servedModel } from "./connection.js";
import { EnrichPanel } from "./enrich_panel.js";
import { Icon } from "./icons.js";
import { useShortcut } from "./keys.js";
import { Message } from "./message.js";
import { NewChat } from "./new_chat.js";
import { SettingsPanel } from "./settings_panel.js";
import { store, useStore } from "./store.js";
import { t } from "./strings.js";
import { treeDialog } from "./branch_tree.js";
import { VirtualList } from "./virtual_list.js";

const aboutOf = (model) => model?.townhall?.description || t("new.bare");
const keyOf = (row, at) => (row ? `m${row.id}` : `at${at}`);
const estimate = (row) => (row ? 76 + Math.ceil((row.text?.length ?? 0) / 90) * 23 : 120);

function ChatHead() {
  const model = useStore((state) => (state.chat ? servedModel(state, state.chat.head.model) : modelOf(state, state.fresh.model)));
  const name = useStore(speaker), head = useStore((state) => state.chat?.head), panel = useStore((state) => state.panel);
  return html`<header class="chat-head"><${SideToggle} />
    <${Face} id=${model?.id ?? head?.persona} size=${40} />
    <div class="chat-who"><h1><bdi>${name || "Townhall"}</bdi></h1><p title=${aboutOf(model)}>${head?.title ? html`<bdi>${head.title}</bdi>` : model ? aboutOf(model) : ""}</p>
      ${model?.townhall?.via && html`<p class="via" title=${t("via.answers", model.townhall.via)}><bdi>${t("via.answers", model.townhall.via)}</bdi></p>`}</div>
    ${head && html`<${IconButton} icon="tree" label=${t("tree.title")} onClick=${treeDialog} />`}
    <${IconButton} icon="settings" label=${t("settings.open")} aria-expanded=${panel === "settings" ? "true" : "false"} onClick=${() => store.set({ panel: panel ? "" : "settings" })} /></header>`;
}

/** What the page knows of the server before anything else can be shown. */
function Connection() {
  const health = useStore((state) => state.health);
  if (health.status === "ok") return null;
  return html`<div class="connection" role=${health.status === "gone" ? "alert" : "status"}>${health.status === "gone"
    ? html`<p class="problem"><${Icon} name="warning" /><span>${t("server.gone")}</span></p>` : html`<${Spinner} label=${health.status === "loading" ? t("server.loading") : t("loading")} />`}</div>`;
}

function Problem() {
  const text = useStore((state) => state.problem), gone = useStore((state) => state.health.status === "gone");
  if (!text || (gone && text === t("server.gone"))) return null;
  return html`<div class="problem" role="alert"><${Icon} name="warning" /><span>${text}</span><${IconButton} icon="close" label=${t("close")} onClick=${() => store.set({ problem: "" })} /></div>`;
}

function Conversation({ chat, wanted }) {
  const list = useRef(null), [away, setAway] = useState(false), [current, setCurrent] = useState(null);
  const rows = useMemo(() => rowsOf(chat), [chat.messages, chat.generation]);
  const pending = useStore((state) => state.pending), branchAt = useStore((state) => state.branchAt), rate = useStore((state) => state.rate);
  const busy = Boolean(chat.generation);
  const last = rows.length - 1;
  const forgotten = useMemo(() => {
    const seen = new Map();
    let before = 0;
    for (const row of rows) { if (row) seen.set(row.id, before); if (row?.receipt) before = row.receipt.dropped ?? 0; }
    return seen;
  }, [rows]);

  useEffect(() => { list.current?.toEnd(); }, [chat.id]);
  useEffect(() => { if (pending) list.current?.toEnd(); }, [pending]);
  useEffect(() => {
    if (!wanted) return;
    placeOf(Number(wanted)).then((at) => { if (at >= 0) { setCurrent(Number(wanted)); list.current?.toRow(at); need(Math.max(0, at - 20), at + 20); } }, problem);
  }, [chat.id, wanted]);

  // arrow keys go from message to message; left and right, with Alt, between the versions of the last reply
  const move = (event) => {
    const row = event.target.closest?.(".message");
    if (!row || event.target !== row || !["ArrowUp", "ArrowDown"].includes(event.key) || event.altKey) return;
    const all = [...row.closest(".talk").querySelectorAll(".message")], next = all[all.indexOf(row) + (event.key === "ArrowUp" ? -1 : 1)];
    if (next) { setCurrent(Number(next.dataset.id)); next.focus(); event.preventDefault(); }
  };
  const swipe = (step) => {
    const message = chat.messages.at(-1), to = message?.swipe_ids[message.swipe + step];
    if (to && !busy) choose(to);
  };
  useShortcut("swipe-left", () => swipe(-1), [chat, busy]);
  useShortcut("swipe-right", () => swipe(1), [chat, busy]);
  const focused = useCallback((event) => { const id = event.target.closest?.(".message")?.dataset.id; if (id) setCurrent(Number(id)); }, []);
  const tabbable = rows.some((row) => row?.id === current) ? current : rows[last]?.id;

  return html`<div class="talk-frame"><${VirtualList} class="talk" role="log" aria-label=${t("talk.label")} aria-live="off" aria-busy=${busy || pending ? "true" : "false"} tabindex="0" onKeyDown=${move} onFocusIn=${focused}
      rows=${rows} keyOf=${keyOf} estimate=${estimate} handle=${list} onRange=${need} onEnd=${(end) => setAway(!end)}
      render=${(row, at) => (row ? html`<${Message} message=${row} place=${at} of=${rows.length} last=${at === last} beforeLast=${at === last - 1} current=${row.id === tabbable} busy=${busy} model=${chat.head.model}
        forgotten=${forgotten.get(row.id)} rate=${rate?.message === row.id ? rate : null} wanted=${String(row.id) === wanted} />` : html`<div class="message missing"></div>`)}>
      ${pending && pending.of === chat.id && html`<article class="message mine pending"><div class="bubble"><p class="plain" dir="auto">${pending.text}</p><p class="note">${t("talk.sending")}</p></div></article>`}
      ${branchAt !== null && html`<p class="note branch-note">${t("branch.here")}</p>`}
    <//>${away && html`<${Button} class="to-end" icon="down" label=${t("talk.toEnd")} onClick=${() => list.current.toEnd()} />`}</div>`;
}

export function ChatView({ route }) {
  const chat = useStore((state) => state.chat), panel = useStore((state) => state.panel), name = useStore(speaker);
  const pending = useStore((state) => state.pending);
  // before the next key comes, which belongs to the chat that was gone to
  useLayoutEffect(() => { open(route.id); }, [route.id]);
  useEffect(() => { document.title = `${chat?.head.title || chat?.head.first || name || t("chat.new")} · Townhall`; }, [chat?.head, name]);
  useShortcut("settings", () => store.set((state) => ({ panel: state.panel ? "" : "settings" })));
  useShortcut("continue", () => { const { chat } = store.get(); if (!chat?.generation && lastMessage(chat)?.role === "assistant") carryOn(); });
  useShortcut("stop", () => { if (!store.get().chat?.generation) return false; stop(); document.getElementById("message")?.focus(); return true; });
  const generation = chat?.generation;
  return html`<div class="chat"><div class="chat-column"><${ChatHead} /><${Connection} />
      ${chat ? html`<${Conversation} chat=${chat} wanted=${route.query.message} />` : route.id ? html`<div class="talk-frame"><${Spinner} label=${t("loading")} /></div>` : html`<${NewChat} pending=${pending} />`}
      <p class="unseen" role="status">${generation ? t("talk.writing", { name: chat.head.persona }) : ""}</p>
      <div class="chat-foot">${chat && !chat.head.model && html`<p class="remark">${t("chat.readOnly", { name: chat.head.persona })}</p>`}<${Problem} /><${EnrichPanel} /><${Composer} /><${ContextBar} /></div></div>
    ${panel === "settings" && html`<${SettingsPanel} />`}</div>`;
}
