// The open chat: what the server has of it, what its events change, and all that can be done with it.
import { ApiError, events, get, patch, post, put, del } from "./api.js";
import { changed, configure, settled, withOwn } from "./chat_settings.js";
import { lost, modelOf, nameOf } from "./connection.js";
import { chooseWords, leaveWords } from "./enrichment.js";
import { go } from "./router.js";
import { arrived, leftFor, underway } from "./sending.js";
import { announce, notify, store } from "./store.js";
import { t } from "./strings.js";

export const TAB = Math.random().toString(36).slice(2);
const PAGE = 100; // messages fetched at a time
export const base = (id) => `townhall/chats/${encodeURIComponent(id)}`;

/** A chat that is not there yet: it comes to the server with its first message. `mark` tells it from the next one, whatever is changed of it. */
export const freshChat = (model = null) => ({ mark: {}, model, greeting: 0, settings: {}, system: "", note: null });
store.set({ chat: null, fresh: freshChat(), pending: null, branchAt: null, rate: null });

export const problem = (error) => {
  if (error.name === "AbortError") return;
  lost(error);
  const said = { conflict: t("composer.conflict"), busy: t("composer.busy") }[error.code] ?? error.message;
  store.set({ problem: said });
};
export const update = (id, change) => store.set((state) => (state.chat?.id === id ? { chat: { ...state.chat, ...(typeof change === "function" ? change(state.chat) : change) } } : null));

function opened(open) {
  const messages = new Array(open.total);
  open.messages.forEach((message, at) => { messages[open.from + at] = message; });
  return { id: open.chat.id, head: open.chat, greetings: open.greetings, ...withOwn(open.chat.id, open), draft: open.draft, enrich: open.enrich,
    messages, generation: open.generation };
}

// ---- what is shown

/** The rows of the conversation: the messages of the path, and the reply that is being written in its place. */
export function rowsOf(chat) {
  const live = chat.generation;
  if (!live || live.index === null || live.index === undefined) return chat.messages;
  const before = chat.messages[live.index];
  return [...chat.messages.slice(0, live.index), { ...(live.kind === "continue" && before), ...live, id: live.message ?? -1, live: true, role: "assistant", name: chat.head.persona, swipe_ids: [], swipe: 0 }];
}

export const lastMessage = (chat) => chat?.messages.at(-1);
export const speaker = (state) => (state.chat ? state.chat.head.persona : nameOf(modelOf(state, state.fresh.model)));

/** Fetch the messages of the path that are not here yet, around those rows. */
const fetching = new Set();
export async function need(from, to) {
  const { chat } = store.get();
  if (!chat) return;
  let first = -1;
  for (let at = from; at < Math.min(to, chat.messages.length); at++) if (!chat.messages[at]) { first = at; break; }
  if (first < 0) return;
  const start = Math.max(0, Math.min(first, to - PAGE)), key = `${chat.id} ${start}`;
  if (fetching.has(key)) return;
  fetching.add(key);
  try {
    const page = await get(`${base(chat.id)}/messages?from=${start}&limit=${PAGE}`);
    update(chat.id, (now) => {
      const messages = [...now.messages];
      page.messages.forEach((message, at) => { if (page.from + at < messages.length) messages[page.from + at] ??= message; });
      return { messages };
    });
  } catch (error) { problem(error); } finally { fetching.delete(key); }
}

// ---- open, watch

let watching = null;
let position = { id: "", event: "" }; // of the open chat: the newest event that is shown
let waiters = []; // [event, resolve]: who waits for an event to be shown

const sequence = (event) => Number(event.slice(event.indexOf("-") + 1)), epoch = (event) => event.slice(0, event.indexOf("-"));
/** How many events `event` is ahead of what is shown; NaN where the server began to count anew. */
const ahead = (event) => (epoch(event) === epoch(position.event) ? sequence(event) - sequence(position.event) : NaN);
function shown(id, event) {
  position = { id, event };
  waiters = waiters.filter(([wanted, resolve]) => (ahead(wanted) > 0 ? true : resolve()));
}

/** Show what a request changed, in its turn among the events: the stream may have been quicker, or others' events come before it. */
async function take(id, change) {
  if (store.get().chat?.id !== id) return;
  const distance = ahead(change.event);
  if (distance <= 0) return;
  if (distance === 1) { applyChange(id, change); shown(id, change.event); return; }
  if (distance > 1) await Promise.race([new Promise((resolve) => waiters.push([change.event, resolve])), new Promise((resolve) => setTimeout(resolve, 2000))]);
  if (store.get().chat?.id === id && !(ahead(change.event) <= 0)) await again(id);
}

/** Show that chat, or a new one for "". */
export async function open(id) {
  watching?.abort();
  leaveWords(id);
  const { chat } = store.get();
  if (chat?.id === id && id) return watch(id);
  store.set({ chat: null, branchAt: null, rate: null, problem: "" });
  if (!id) return;
  try {
    const answer = await get(`${base(id)}?limit=${PAGE}`);
    if (store.get().route.view !== "chat" || store.get().route.id !== id) return;
    const found = opened(answer);
    store.set({ chat: found });
    shown(id, answer.event);
    watch(id);
    const body = leftFor(id);
    if (body && !sending) sendLeft(id, body);
  } catch (error) {
    if (store.get().route.id !== id) return;
    if (error.status === 404) { go("chat", "", { replace: true }); notify(t("chat.missing"), "bad"); return; }
    problem(error);
    if (error.code === "gone" || error.code === "loading") setTimeout(() => { if (store.get().route.id === id && !store.get().chat) open(id); }, 1000);
  }
}

async function watch(id) {
  watching?.abort();
  const mine = (watching = new AbortController());
  for (let tries = 0; !mine.signal.aborted; tries++) {
    try {
      for await (const frame of events("GET", `${base(id)}/events?after=${encodeURIComponent(position.event)}`, undefined, { signal: mine.signal })) {
        tries = 0;
        if (mine.signal.aborted) return;
        if (frame.event === "reload") { await again(id); continue; }
        if (ahead(frame.id) <= 0) continue; // a request's answer was quicker
        happened(id, frame.event, JSON.parse(frame.data || "{}"));
        shown(id, frame.id);
        if (frame.event === "deleted") return;
      }
    } catch (error) {
      if (mine.signal.aborted || error.name === "AbortError") return;
      if (error.status === 404) await again(id).catch(() => {});
      else {
        if (store.get().chat?.generation) { problem(error.code === "gone" ? new ApiError(t("server.broken"), 0, "broken") : error); halted(id); }
        lost(error);
      }
    }
    await new Promise((go) => setTimeout(go, Math.min(3000, 200 * 2 ** tries)));
  }
}

/** The server went away: what is there of the reply stays in view until the chat is read again. */
function halted(id) {
  update(id, (chat) => ({ messages: rowsOf(chat).map((row) => (row?.live ? { ...row, live: false, finish_reason: "interrupted" } : row)), generation: null }));
}

/** Read the chat anew. */
async function again(id) {
  try {
    const answer = await get(`${base(id)}?limit=${PAGE}`);
    // events may have come while the answer was on its way: it would take the chat back to before them, and they do not come again
    if (store.get().chat?.id !== id || ahead(answer.event) < 0) return;
    update(id, opened(answer));
    shown(id, answer.event);
    store.set((state) => (state.problem === t("server.gone") || state.problem === t("server.broken") ? { problem: state.problem === t("server.broken") ? state.problem : "" } : null));
  } catch (error) {
    if (error.status === 404) happened(id, "deleted", {});
    throw error;
  }
}

/** In a hidden tab no stream is kept: browsers have few connections to one host. */
document.addEventListener("visibilitychange", () => {
  const { chat, route } = store.get();
  if (document.hidden) watching?.abort();
  else if (chat && route.view === "chat" && route.id === chat.id) watch(chat.id);
});

// ---- events

let unseen = { text: "", reasoning: "", tokens: 0 }, frame = 0, began = 0;

function flush() {
  frame = 0;
  const { text, reasoning, tokens } = unseen;
  unseen = { text: "", reasoning: "", tokens: 0 };
  if (!text && !reasoning) return;
  store.set((state) => (state.chat?.generation ? { chat: { ...state.chat, generation: { ...state.chat.generation,
    text: state.chat.generation.text + text, reasoning: state.chat.generation.reasoning + reasoning, state: "writing", tokens: (state.chat.generation.tokens ?? 0) + tokens } } } : null));
}
const soon = () => { frame ||= document.hidden ? setTimeout(flush, 100) : requestAnimationFrame(flush); };

function happened(id, event, data) {
  if (event === "delta" || event === "thoughts") {
    unseen[event === "delta" ? "text" : "reasoning"] += data.text;
    unseen.tokens++;
    return soon();
  }
  if (event === "change") { flush(); applyChange(id, data); }
  else if (event === "begin") { unseen = { text: "", reasoning: "", tokens: 0 }; began = performance.now(); update(id, { generation: data }); store.set({ rate: null }); }
  else if (event === "prompt") update(id, (chat) => ({ generation: chat.generation && { ...chat.generation, receipt: data.receipt, state: "reading" } }));
  else if (event === "end") ended(id, data);
  else if (event === "chat") update(id, { head: data.chat, ...withOwn(id, data) });
  else if (event === "draft") { if (data.tab !== TAB) draftElsewhere?.(data.text); }
  else if (event === "deleted" && store.get().chat?.id === id) {
    go("chat", "", { replace: true });
    store.set({ chat: null });
    notify(t("chat.gone"), "bad");
  }
}

function ended(id, data) {
  flush();
  const { chat } = store.get();
  if (chat?.id !== id) return;
  const seconds = (performance.now() - began) / 1000, tokens = data.usage?.completion_tokens;
  update(id, { generation: null });
  if (data.change) applyChange(id, data.change);
  if (data.error) problem(new ApiError(data.error.code === "context_length_exceeded" ? t("server.overflow") : data.error.message, 0, data.error.code ?? ""));
  if (data.kind === "impersonate" && data.text) written?.(data.text);
  else if (data.text) announce(t("talk.said", { name: chat.head.persona, text: data.text }));
  store.set({ rate: tokens && began && seconds > 0.2 ? { message: data.message?.id, tokens, rate: tokens / seconds } : null });
}

/** The path from `from` on is as the change has it. */
export function applyChange(id, change) {
  update(id, (chat) => {
    const messages = chat.messages.slice(0, change.from);
    messages.length = change.total;
    change.messages.forEach((message, at) => { messages[change.from + at] = message; });
    return { messages, generation: change.generation ?? (chat.generation && change.generation === undefined ? chat.generation : null) };
  });
}

let draftElsewhere = null, written = null, refused = null;
/** The composer hears what other tabs wrote into the draft, what the model wrote for the user, and what the server did not take. */
export const onWords = (elsewhere, theirs, back) => { draftElsewhere = elsewhere; written = theirs; refused = back; };

// ---- what can be done

/** Run a request about the open chat and show what it changed; the answer, or null after a fault. */
async function act(request, { atOnce = false } = {}) {
  const { chat } = store.get();
  if (!chat) return null;
  store.set({ problem: "", branchAt: null });
  try {
    if (!atOnce) await settled(chat.id); // a reply is drawn with the settings that were chosen before it was asked for
    const answer = await request(base(chat.id), chat);
    if (answer?.messages && "from" in answer && "total" in answer && !answer.chat) await take(chat.id, answer);
    return answer;
  } catch (error) { problem(error); return null; }
}

/** The chat's id; a new chat is made first. */
async function ensure() {
  const { chat, fresh } = store.get();
  if (chat) return chat;
  const { models } = store.get();
  const { greeting, mark, ...rest } = fresh;
  const answer = await post("townhall/chats", { ...rest, ...(greeting && { greeting }), model: modelOf({ models, controls: store.get().controls }, fresh.model)?.id });
  const found = opened(answer);
  const now = store.get();
  if (now.fresh.mark === mark && !now.chat && now.route.view === "chat" && !now.route.id) {
    store.set({ chat: found, fresh: freshChat(fresh.model) });
    shown(found.id, answer.event);
    go("chat", found.id, { replace: true });
    const meanwhile = changed(fresh, now.fresh);
    if (meanwhile) configure(meanwhile);
  }
  return found;
}

/** The words as they are to be sent; null where they were taken back, as the chat's draft where another chat is open by now. */
async function wordsFor(id, text, role) {
  const open = store.get().chat, mode = open?.id === id && role === "user" ? open.enrich : "off";
  if (!mode || mode === "off") return { text };
  keepDraft(id, text).catch(() => {}); // for a reload meanwhile
  const words = await chooseWords(id, text, mode);
  if (!words && store.get().chat?.id !== id) await keepDraft(id, text);
  return words;
}

let sending = false, lastTry = { text: "", key: "" };

/** Say `text`; true where the server took it. What it refuses is for the caller to keep. */
export async function send(text, { role = "user", reply = true, ...once } = {}) {
  if (sending || store.get().chat?.generation) return false;
  sending = true;
  // the same words after a lost connection are the same message: the server takes them once
  if (lastTry.text !== text) lastTry = { text, key: `${TAB}-${Date.now()}` };
  store.set({ pending: { text, role, of: store.get().chat?.id ?? "" }, problem: "", branchAt: null });
  try {
    if (!store.get().chat) underway("", { text });
    const chat = await ensure();
    await settled(chat.id);
    const words = await wordsFor(chat.id, text, role);
    if (!words) return false;
    const now = store.get().chat?.id === chat.id ? store.get().chat : chat;
    await deliver(chat.id, { ...words, role, reply, after: lastMessage(now)?.id ?? 0, key: lastTry.key, ...once });
    lastTry = { text: "", key: "" };
    return true;
  } catch (error) {
    if (error.code !== "gone") lastTry = { text: "", key: "" };
    problem(error);
    return false;
  } finally {
    sending = false;
    arrived();
    store.set({ pending: null });
  }
}

async function deliver(id, body) {
  underway(id, body);
  await take(id, await post(`${base(id)}/messages`, body));
}

/** Send what a page of this tab had on its way when it was left. */
async function sendLeft(id, body) {
  sending = true;
  store.set({ pending: { text: body.text, role: body.role, of: id } });
  try { await deliver(id, body); } catch (error) {
    problem(error);
    refused?.(body.text);
  } finally {
    sending = false;
    arrived();
    store.set({ pending: null });
  }
}

export const retry = (message, once = {}) => act((at) => post(`${at}/reply`, { ...(message && { message }), ...once }));
export const carryOn = (once = {}) => act((at) => post(`${at}/continue`, once));
export const impersonate = (once = {}) => act((at) => post(`${at}/impersonate`, once));
export const stop = () => act((at) => post(`${at}/stop`), { atOnce: true });
export const choose = (message) => act((at) => post(`${at}/choose`, { message }));
export const edit = (message, text, { again = false } = {}) => act((at) => patch(`${at}/messages/${message}`, again ? { text, copy: true, reply: true } : { text }));
export const setRating = (message, rating) => act((at) => put(`${at}/messages/${message}/rating`, { rating }));
export const remove = (message, below) => act((at) => del(`${at}/messages/${message}?below=${below}`));
export const alternative = (message, position, token) => act((at) => post(`${at}/messages/${message}/alternative`, { position, token }));
export const logprobs = (message) => get(`${base(store.get().chat.id)}/messages/${message}/logprobs?top=5`);
export const tree = () => get(`${base(store.get().chat.id)}/tree`);

export async function branch(message, chat) {
  const answer = await act((at) => post(`${at}/branch`, { message, chat }));
  if (answer?.chat) go("chat", answer.chat.id);
  else if (answer) store.set({ branchAt: message });
}

/** The last exchange goes; the user's words of it, to be said otherwise. */
export async function undo() {
  const { chat } = store.get();
  const at = chat?.messages.findLastIndex((message) => message?.role === "user") ?? -1;
  if (at < 0) return "";
  const answer = await remove(chat.messages[at].id, true);
  return answer ? chat.messages[at].text : "";
}

export const keepDraft = (id, text, keepalive = false) => put(`${base(id)}/draft`, { text, tab: TAB }, { keepalive });
export const draftOf = async (id) => (await get(`${base(id)}/draft`)).text;
export const countTokens = (text, signal) => {
  const { chat, fresh } = store.get();
  if (chat) return post(`${base(chat.id)}/tokens`, { text }, { signal });
  return post("v1/tokenize", { prompt: text, add_special_tokens: false, model: modelOf(store.get(), fresh.model)?.id }, { signal }).then((answer) => ({ tokens: answer.count }));
};

/** Open the chat at a message, wherever in the tree it stands; its place on the path. */
export async function placeOf(message) {
  const found = await get(`${base(store.get().chat.id)}/messages/${message}`);
  if (found.index !== null) return found.index;
  await choose(message);
  return store.get().chat.messages.findIndex((one) => one?.id === message);
}
