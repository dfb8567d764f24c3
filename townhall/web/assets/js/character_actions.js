// What is done with characters, wherever on the page.
import { del, download, post, save } from "./api.js";
import { freshChat } from "./chat_state.js";
import { confirmed } from "./components.js";
import { lost, refreshModels } from "./connection.js";
import { go } from "./router.js";
import { notify, store } from "./store.js";
import { t } from "./strings.js";

export const ROOT = "townhall/characters";
export const pathOf = (id, rest = "") => `${ROOT}/${encodeURIComponent(id)}${rest}`;

/** Say what went wrong, and notice a server that is gone. */
export function failed(error) {
  if (error.name === "AbortError") return;
  lost(error);
  notify(error.message, "bad");
}

/** Begin a chat with a character. */
export function talkTo(id) {
  store.set((state) => ({ fresh: { ...freshChat(id), settings: state.fresh?.settings ?? {} } }));
  go("chat");
}

/** What was made or changed: tell the other parts of the page, and say why it is not served. */
export async function changed(character) {
  await refreshModels();
  store.set((state) => ({ portraits: (state.portraits ?? 0) + 1 }));
  for (const note of character?.notes ?? []) notify(note);
  if (character?.not_served) notify(t("characters.notServed", { why: character.not_served }), "bad");
}

export async function exportAs(id, format) {
  try {
    const { blob, name } = await download(pathOf(id, `/export?format=${format}`));
    save(blob, name ?? `${id}.${format}`);
  } catch (error) { failed(error); }
}

export async function duplicate(id) {
  try {
    const made = await post(pathOf(id, "/duplicate"));
    await changed(made);
    notify(t("characters.duplicated", { name: made.fields.name, id: made.id }));
    go("characters", made.id);
  } catch (error) { failed(error); }
}

export async function remove(id, name) {
  if (!(await confirmed(t("characters.delete", { name }), t("characters.deleteText"), t("delete")))) return false;
  try {
    await del(pathOf(id));
    await changed(null);
    notify(t("characters.deleted", { name }));
    return true;
  } catch (error) { failed(error); return false; }
}
