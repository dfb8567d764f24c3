// The list of chats: newest first, with folders, tags and a filter. It keeps still under who points at it while it grows.
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "./html.js";
import { del, download, events, get, patch, save } from "./api.js";
import { asked, confirmed, Face, Menu } from "./components.js";
import { lost } from "./connection.js";
import { memo } from "./memo.js";
import { Icon } from "./icons.js";
import { go, href } from "./router.js";
import { problem } from "./chat_state.js";
import { store, useStore } from "./store.js";
import { t, when } from "./strings.js";

const PAGE = 60;
const CHANNEL = "townhall-chats";
store.set({ chats: { list: null, total: 0, next: null, folders: [], tags: [] }, filter: { q: "", folder: null, tag: "" } });

const titleOf = (chat) => chat.title || chat.first || t("chats.empty");
const path = (offset, { q, folder, tag }) => `townhall/chats?${new URLSearchParams({ limit: PAGE, offset, ...(q && { q }), ...(tag && { tag }), ...(folder !== null && { folder }) })}`;

let asking = 0, heard = ""; // heard: the newest event of the list that is shown
async function load(offset = 0) {
  const mine = ++asking, { filter } = store.get();
  try {
    const answer = await get(path(offset, filter));
    if (mine !== asking) return;
    if (!offset) heard = answer.event;
    store.set((state) => ({ chats: { list: offset ? [...state.chats.list, ...answer.chats] : answer.chats, total: answer.total, next: answer.next, folders: answer.folders, tags: answer.tags } }));
  } catch (error) { lost(error); if (mine === asking) setTimeout(() => load(offset), 2000); }
}

/** One chat came, changed or went. */
function changed({ chat, deleted }) {
  const { filter } = store.get();
  if (filter.q || filter.tag || filter.folder !== null || chat?.folder || chat?.tags.length || deleted) { load(); if (!deleted) return; }
  store.set((state) => {
    if (!state.chats.list) return null;
    const before = state.chats.list.find((one) => one.id === (chat?.id ?? deleted)), rest = state.chats.list.filter((one) => one !== before);
    if (!chat) return { chats: { ...state.chats, list: rest } };
    const stays = before && before.changed === chat.changed;
    const list = stays ? state.chats.list.map((one) => (one === before ? chat : one)) : [chat, ...rest];
    return { chats: { ...state.chats, list: list.sort((a, b) => (a.changed < b.changed ? 1 : a.changed > b.changed ? -1 : 0)), total: state.chats.total + (before ? 0 : 1) } };
  });
}

/** One tab of a browser listens to the server and passes on what it hears: browsers have few connections to one host. */
function listen() {
  const channel = "BroadcastChannel" in window ? new BroadcastChannel(CHANNEL) : null;
  if (channel) channel.onmessage = ({ data }) => (data === "again" ? load() : changed(data));
  const stream = async () => {
    for (let tries = 0; ; tries++) {
      try {
        for await (const frame of events("GET", `townhall/events${heard ? `?after=${encodeURIComponent(heard)}` : ""}`)) {
          tries = 0;
          heard = frame.id;
          if (frame.event === "chats") { const data = JSON.parse(frame.data); changed(data); channel?.postMessage(data); }
          if (frame.event === "reload") { load(); channel?.postMessage("again"); }
        }
      } catch (error) { lost(error); }
      await new Promise((go) => setTimeout(go, Math.min(3000, 200 * 2 ** tries)));
    }
  };
  if (channel && navigator.locks) navigator.locks.request(CHANNEL, stream);
  else stream();
}

async function change(chat, what) {
  try { changed({ chat: (await patch(`townhall/chats/${encodeURIComponent(chat.id)}`, what)).chat }); load(); } catch (error) { problem(error); }
}

const actions = (chat) => {
  const name = titleOf(chat), short = name.length > 24 ? `${name.slice(0, 23)}…` : name;
  return [
    { label: t("chat.rename"), icon: "edit", onClick: async () => { const title = await asked(t("chat.rename"), t("chat.newName", { name: short }), name, t("chat.saveName")); if (title !== null) change(chat, { title: title.split(/\s+/).join(" ").trim().slice(0, 120) }); } },
    { label: t("chat.folder"), icon: "folder", onClick: async () => { const folder = await asked(t("chat.folder"), t("chat.folderName"), chat.folder); if (folder !== null) change(chat, { folder: folder.trim() }); } },
    { label: t("chat.tags"), icon: "tag", onClick: async () => { const tags = await asked(t("chat.tags"), t("chat.tagsHelp"), chat.tags.join(", ")); if (tags !== null) change(chat, { tags: [...new Set(tags.split(",").map((tag) => tag.trim()).filter(Boolean))] }); } },
    ...["md", "json"].map((form) => ({ label: t(form === "md" ? "chat.exportMd" : "chat.exportJson"), icon: "export", onClick: async () => {
      try { const file = await download(`townhall/chats/${encodeURIComponent(chat.id)}/export?form=${form}`); save(file.blob, file.name ?? `${chat.id}.${form}`); } catch (error) { problem(error); }
    } })),
    { label: t("chat.delete"), icon: "trash", danger: true, onClick: async () => {
      if (!await confirmed(t("chat.deleteTitle", { name: short }), t("chat.deleteText"), t("chat.deleteYes", { name: short }))) return;
      try { await del(`townhall/chats/${encodeURIComponent(chat.id)}`); changed({ deleted: chat.id }); if (store.get().route.id === chat.id) { go("chat", "", { replace: true }); document.getElementById("message")?.focus(); } } catch (error) { problem(error); }
    } },
  ];
};

const Entry = memo(({ chat, open, tab }) => {
  const name = titleOf(chat);
  return html`<li class=${`chat-entry ${open ? "open" : ""}`} data-id=${chat.id}><a href=${href("chat", chat.id)} tabindex=${tab} aria-current=${open ? "page" : undefined} title=${chat.fault ? t("chats.unreadable", { fault: chat.fault }) : `${name} · ${chat.persona} · ${when(chat.changed)}`}>
      <${Face} id=${chat.model ?? chat.persona} size=${24} /><span class="chat-title"><bdi>${name}</bdi></span>${chat.busy && html`<span class="dot"><span class="unseen">${t("chats.busy")}</span></span>`}${chat.fault && html`<${Icon} name="warning" size=${15} />`}</a>
    <${Menu} label=${t("chats.menu", { name: name.length > 40 ? `${name.slice(0, 39)}…` : name })} items=${actions(chat)} class="chat-menu" tab=${tab} /></li>`;
});

/** What is pointed at, has the focus or was scrolled to stays where it is when rows come or go above it. */
function useStillness(scroller, list) {
  const held = useRef(null);
  const rows = () => [...scroller.current.querySelectorAll(".chat-entry")];
  if (scroller.current) {
    const all = rows(), top = scroller.current.getBoundingClientRect().top;
    const row = all.find((one) => one.contains(document.activeElement) && document.activeElement.matches("a, button")) ?? all.find((one) => one.matches(":hover")) ?? (scroller.current.scrollTop > 0 ? all.find((one) => one.getBoundingClientRect().bottom > top) : null);
    held.current = row ? { id: row.dataset.id, at: row.getBoundingClientRect().top } : null;
  }
  useLayoutEffect(() => {
    const row = held.current && rows().find((one) => one.dataset.id === held.current.id);
    if (row) scroller.current.scrollTop += row.getBoundingClientRect().top - held.current.at;
  }, [list]);
}

export function ChatList() {
  const chats = useStore((state) => state.chats), filter = useStore((state) => state.filter);
  const openId = useStore((state) => (state.route.view === "chat" ? state.route.id : "")), scroller = useRef(), first = useRef(true), [focused, setFocused] = useState("");
  useEffect(() => { load().then(listen); }, []);
  useEffect(() => {
    if (first.current) { first.current = false; return; }
    const timer = setTimeout(load, 150);
    return () => clearTimeout(timer);
  }, [filter]);
  useStillness(scroller, chats.list);
  const set = (some) => store.set((state) => ({ filter: { ...state.filter, ...some } }));
  const groups = useMemo(() => {
    const found = new Map([["", []]]);
    for (const chat of chats.list ?? []) found.set(chat.folder, [...(found.get(chat.folder) ?? []), chat]);
    return [...found].sort(([a], [b]) => (a === "" ? 1 : b === "" ? -1 : a.localeCompare(b)));
  }, [chats.list]);
  const keys = (event) => {
    const all = [...scroller.current.querySelectorAll(".chat-entry > a")], at = all.indexOf(document.activeElement), to = { ArrowDown: at + 1, ArrowUp: at - 1 }[event.key];
    if (at >= 0 && all[to]) { all[to].focus(); event.preventDefault(); }
  };
  // the list is one stop of the Tab key; the arrow keys move within it
  const tabbable = [focused, openId].find((id) => chats.list?.some((one) => one.id === id)) ?? groups.find(([, list]) => list.length)?.[1][0].id;
  const entries = (list) => html`<ul aria-label=${t("chats.title")}>${list.map((chat) => html`<${Entry} key=${chat.id} chat=${chat} open=${chat.id === openId} tab=${chat.id === tabbable ? 0 : -1} />`)}</ul>`;
  return html`<div class="chats"><div class="chats-head"><button type="button" class="button primary new" onClick=${() => { go("chat"); document.getElementById("message")?.focus(); }}><${Icon} name="plus" /><span>${t("chat.new")}</span></button>
      <a class="icon-button" href=${href("search")} aria-label=${t("search.label")} title=${t("search.label")}><${Icon} name="search" /></a></div>
    <input type="search" aria-label=${t("chats.filter")} placeholder=${t("chats.filter")} value=${filter.q} onInput=${(event) => set({ q: event.currentTarget.value })} />
    ${chats.tags.length > 0 && html`<div class="tags" role="group" aria-label=${t("chat.tags")}>${chats.tags.map((tag) => html`<button type="button" key=${tag.name} class="chip" aria-pressed=${filter.tag === tag.name ? "true" : "false"} title=${t("chats.byTag")}
      onClick=${() => set({ tag: filter.tag === tag.name ? "" : tag.name })}><bdi>${tag.name}</bdi> ${tag.chats}</button>`)}</div>`}
    <nav class="chat-scroll" aria-label=${t("chats.title")} ref=${scroller} onKeyDown=${keys} onFocusIn=${(event) => setFocused(event.target.closest(".chat-entry")?.dataset.id ?? "")}>
      ${groups.map(([folder, list]) => (folder ? html`<details key=${`f-${folder}`} class="folder" open><summary><${Icon} name="folder" size=${15} /><bdi>${folder}</bdi></summary>${entries(list)}</details>`
        : list.length > 0 && html`<div key="loose">${groups.length > 1 && html`<p class="group">${t("chats.loose")}</p>`}${entries(list)}</div>`))}
      ${chats.list && !chats.list.length && html`<p class="faint nothing">${filter.q || filter.tag ? t("chats.noneFound") : t("chats.none")}</p>`}
      ${chats.next !== null && chats.list && html`<button type="button" class="button quiet" onClick=${() => load(chats.next)}>${t("chats.more")}</button>`}</nav></div>`;
}
