// Settings of the open chat as they are changed: shown at once, saved in order, and saved before a reply is asked for.
import { get, patch } from "./api.js";
import { base, problem, update } from "./chat_state.js";
import { store } from "./store.js";

// Settings that were changed here, by chat: what is to be sent, what is on its way, and the promise that all of it is saved. One request at a
// time, since a second one could overtake it; what the server says meanwhile is older than what is shown.
const unsent = new Map(), onTheWay = new Map(), saving = new Map();
const choicesOf = ({ settings, system, note }) => ({ settings, system, note });
export const withOwn = (id, said) => [onTheWay.get(id), unsent.get(id)].reduce((now, own) => (own ? { ...now, ...("system" in own && { system: own.system }), ...("note" in own && { note: own.note }),
  settings: merged(now.settings, own.settings ?? {}) } : now), choicesOf(said));

/** Wait until what was changed is saved. */
export const settled = (id) => saving.get(id);

/** Change settings, title and the like of the open chat, or of the one to come. */
export function configure(change) {
  const { chat } = store.get();
  if (!chat) {
    store.set((state) => ({ fresh: { ...state.fresh, ...change, settings: merged(state.fresh.settings, change.settings ?? {}) } }));
    return;
  }
  const before = unsent.get(chat.id), sampler = { ...before?.settings?.sampler, ...change.settings?.sampler };
  unsent.set(chat.id, { ...before, ...change, ...((before?.settings || change.settings) && { settings: { ...before?.settings, ...change.settings, ...(Object.keys(sampler).length && { sampler }) } }) });
  if (!saving.has(chat.id)) saving.set(chat.id, saveSettings(chat.id, choicesOf(chat)).finally(() => saving.delete(chat.id)));
  update(chat.id, (now) => withOwn(chat.id, now));
}

async function saveSettings(id, confirmed) {
  while (unsent.has(id)) {
    const change = unsent.get(id);
    unsent.delete(id);
    onTheWay.set(id, change);
    try {
      const answer = await patch(base(id), change);
      onTheWay.delete(id);
      confirmed = choicesOf(answer);
      update(id, { head: answer.chat, ...withOwn(id, answer) });
      if ("enrich" in (change.settings ?? {})) update(id, { enrich: (await get(`${base(id)}?limit=1`)).enrich });
    } catch (error) {
      onTheWay.delete(id);
      unsent.delete(id);
      problem(error);
      update(id, confirmed);
    }
  }
}

/** What `configure` takes to make one chat's choices another's; null where they are the same. */
export function changed(from, to) {
  const change = {};
  if (from.system !== to.system) change.system = to.system;
  if (from.note !== to.note) change.note = to.note;
  if (from.settings !== to.settings) {
    change.settings = { ...takenBack(from.settings, to.settings), ...to.settings };
    if (from.settings.sampler && to.settings.sampler) change.settings.sampler = { ...takenBack(from.settings.sampler, to.settings.sampler), ...to.settings.sampler };
  }
  return Object.keys(change).length ? change : null;
}

const takenBack = (from, to) => Object.fromEntries(Object.keys(from).filter((key) => !(key in to)).map((key) => [key, null]));

/** Settings with some of them changed; null takes one back. */
function merged(settings, change) {
  const found = { ...settings };
  for (const [key, value] of Object.entries(change)) {
    if (value === null) delete found[key];
    else if (key === "sampler") found.sampler = merged(settings.sampler ?? {}, value);
    else found[key] = value;
  }
  return found;
}
