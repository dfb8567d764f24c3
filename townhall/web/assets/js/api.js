// The server over its public API; every failure is an ApiError with one sentence for people.
import { store } from "./store.js";
import { t } from "./strings.js";

const KEY = "townhall-key";

export class ApiError extends Error {
  constructor(message, status = 0, code = "") {
    super(message);
    Object.assign(this, { status, code });
  }
}

export const hasKey = () => Boolean(key);
export const url = (path) => new URL(path.replace(/^\//, ""), document.baseURI.split("#")[0]).href;

let key = sessionStorage.getItem(KEY) ?? "";
let waitingForKey = [];

/** The key that a person typed; requests that wait for one go on. */
export function useKey(given) {
  key = given;
  sessionStorage.setItem(KEY, given);
  store.set({ keyNeeded: false });
  waitingForKey.splice(0).forEach((go) => go());
}

const keyIsGiven = () => new Promise((go) => { waitingForKey.push(go); store.set({ keyNeeded: true }); });

async function ask(method, path, { body, signal, accept, form, keepalive } = {}) {
  for (;;) {
    const headers = { ...(accept && { Accept: accept }), ...(key && { Authorization: `Bearer ${key}` }) };
    let data = form;
    if (body !== undefined) { headers["Content-Type"] = "application/json"; data = JSON.stringify(body); }
    let reply;
    try {
      reply = await fetch(url(path), { method, headers, body: data, signal, keepalive, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(t("server.gone"), 0, "gone");
    }
    if (reply.status === 401) { await keyIsGiven(); continue; }
    if (!reply.ok) throw await failure(reply);
    return reply;
  }
}

async function failure(reply) {
  const text = await reply.text().catch(() => "");
  let said = {};
  try { said = JSON.parse(text).error ?? {}; } catch { /* a proxy's own page */ }
  if (said.code === "context_length_exceeded") return new ApiError(t("server.overflow"), reply.status, said.code);
  if (said.code === "loading") return new ApiError(t("server.loading"), reply.status, said.code);
  return new ApiError(said.message || t("server.status", { status: reply.status }), reply.status, said.code ?? "");
}

/** A JSON request; null for an empty answer. */
export async function request(method, path, body, options = {}) {
  const reply = await ask(method, path, { body, ...options });
  const text = await reply.text();
  return text ? JSON.parse(text) : null;
}
export const get = (path, options) => request("GET", path, undefined, options);
export const post = (path, body = {}, options) => request("POST", path, body, options);
export const put = (path, body = {}, options) => request("PUT", path, body, options);
export const patch = (path, body = {}, options) => request("PATCH", path, body, options);
export const del = (path, options) => request("DELETE", path, undefined, options);
/** Send a FormData or a Blob as it is. */
export const upload = async (path, form, options) => {
  const reply = await ask("POST", path, { form, ...options });
  const text = await reply.text();
  return text ? JSON.parse(text) : null;
};
/** Put a Blob in the place of what is there. */
export const replace = async (path, form, options) => (await ask("PUT", path, { form, ...options })).json();
/** Send a Blob and hear how much of it is sent: `onProgress(0 … 1)`, which fetch does not tell. */
export const uploadWatched = (path, blob, onProgress) => new Promise((resolve, reject) => {
  const sending = new XMLHttpRequest();
  sending.open("POST", url(path));
  if (key) sending.setRequestHeader("Authorization", `Bearer ${key}`);
  sending.upload.onprogress = (event) => { if (event.lengthComputable) onProgress(event.loaded / event.total); };
  sending.onerror = () => reject(new ApiError(t("server.gone"), 0, "gone"));
  sending.onload = async () => {
    const reply = new Response(sending.responseText, { status: sending.status });
    if (sending.status === 401) { await keyIsGiven(); uploadWatched(path, blob, onProgress).then(resolve, reject); } else if (reply.ok) resolve(await reply.json());
    else reject(await failure(reply));
  };
  sending.send(blob);
});
/** A file as a Blob, with its name where the server gives one. */
export async function download(path, options) {
  const reply = await ask("GET", path, options);
  const name = /filename="?([^";]+)/.exec(reply.headers.get("content-disposition") ?? "")?.[1];
  return { blob: await reply.blob(), name };
}
/** Hand a Blob to the person as a file. */
export function save(blob, name) {
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Server-sent events of an answer, one parsed object each: {event, data, id}. Ends with the stream. */
export async function* events(method, path, body, options = {}) {
  const reply = await ask(method, path, { body, accept: "text/event-stream", ...options });
  const decoder = new TextDecoder();
  const reader = reply.body.getReader();
  let rest = "", event = {};
  try {
    for (;;) {
      let piece;
      try {
        piece = await reader.read();
      } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new ApiError(t("server.broken"), 0, "broken");
      }
      const lines = (rest + (piece.value ? decoder.decode(piece.value, { stream: true }) : "")).split(/\r?\n/);
      rest = piece.done ? "" : lines.pop();
      for (const line of lines) {
        if (!line) {
          if (event.data !== undefined) yield { event: event.event ?? "message", id: event.id, data: event.data };
          event = {};
        } else if (!line.startsWith(":")) {
          const at = line.indexOf(":");
          const [name, value] = at < 0 ? [line, ""] : [line.slice(0, at), line.slice(at + 1).replace(/^ /, "")];
          event[name] = name === "data" && event.data !== undefined ? `${event.data}\n${value}` : value;
        }
      }
      if (piece.done) return;
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}
