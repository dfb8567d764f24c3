// One's own question beside the one that the model made of it, which can be understood alone: taken, edited, or refused, before it is sent.
import { post } from "./api.js";
import { notify, store } from "./store.js";
import { t } from "./strings.js";

store.set({ rewriting: null }); // {chat, own, offered, choose}: `offered` comes later

/**
 * What is to be sent for the words `own`, as {text, enriched}; null where their writer takes them back. `mode`: "ask" or "always".
 * A question that cannot be rewritten is sent as it is.
 */
export async function chooseWords(chat, own, mode) {
  const leave = new AbortController();
  const asked = post(`townhall/chats/${encodeURIComponent(chat)}/enrich`, { text: own }, { signal: leave.signal });
  const chosen = new Promise((resolve) => store.set({ rewriting: { chat, own, offered: null, choose: resolve } }));
  try {
    const offered = await Promise.race([asked, chosen.then((text) => { leave.abort(); return { early: text }; })]);
    if ("early" in offered) return offered.early === null ? null : { text: offered.early };
    if (!offered.changed) return { text: own };
    const words = (text) => ({ text, enriched: { own, offered: offered.text } });
    if (mode === "always") return words(offered.text);
    const { pending } = store.get();
    store.set((state) => ({ pending: null, rewriting: { ...state.rewriting, offered } })); // nothing is on its way while its writer chooses
    const text = await chosen;
    if (text !== null) store.set({ pending: { ...pending, text } });
    return text === null ? null : words(text);
  } catch (error) {
    if (error.code === "gone") throw error;
    notify(t("enrich.failed", { fault: error.message }), "bad");
    return { text: own };
  } finally {
    asked.catch(() => {}); // given up
    store.set({ rewriting: null });
  }
}

/** Whoever goes to another chat takes the words back; true where there were some. */
export function leaveWords(chat) {
  const { rewriting } = store.get();
  if (!rewriting || rewriting.chat === chat) return false;
  rewriting.choose(null);
  return true;
}
