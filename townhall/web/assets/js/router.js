// Addresses are fragments, so that the page works under any prefix: #/chat/ID, #/characters/ID?tab=lore.
import { store } from "./store.js";

export function parse(hash) {
  const [path, search = ""] = hash.replace(/^#\/?/, "").split("?");
  const [view = "", ...rest] = path.split("/").map((part) => { try { return decodeURIComponent(part); } catch { return part; } });
  return { view: view || "chat", id: rest.join("/"), query: Object.fromEntries(new URLSearchParams(search)) };
}

export function href(view, id = "", query = {}) {
  const search = new URLSearchParams(query).toString();
  return `#/${view}${id ? `/${encodeURIComponent(id)}` : ""}${search ? `?${search}` : ""}`;
}

/** Go there; `replace` leaves no entry in the history. */
export function go(view, id = "", { query = {}, replace = false } = {}) {
  const target = href(view, id, query);
  if (replace) history.replaceState(null, "", target);
  else if (location.hash !== target) history.pushState(null, "", target);
  read();
}

const read = () => store.set({ route: parse(location.hash), sideOpen: false });

export function startRouter() {
  addEventListener("popstate", read);
  addEventListener("hashchange", read);
  read();
}
