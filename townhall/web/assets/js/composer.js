// The message box: sends, stops, keeps drafts, counts tokens. What is on its way leaves the box at once and comes back if it was refused.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { countTokens, draftOf, edit, impersonate, keepDraft, onWords, problem, retry, send, speaker, stop, undo } from "./chat_state.js";
import { Button, IconButton, Menu } from "./components.js";
import { Icon } from "./icons.js";
import { useShortcut } from "./keys.js";
import { editMessage } from "./message.js";
import { preference } from "./preferences.js";
import { NEW_DRAFT } from "./sending.js";
import { notify, store, useStore } from "./store.js";
import { t } from "./strings.js";

const PAUSE = 500; // milliseconds without a key before a draft is kept
const LONGEST = 220; // pixels that the box grows to
const LONGEST_FILE = 200_000; // bytes

let box = null, synced = ""; // the text that was last kept or came from another tab: what differs from it is nobody's but the writer's
export const focusComposer = () => box?.focus();
/** Words into the box, behind those that are there. */
export function addWords(text, replace = false) {
  if (!box) return;
  box.value = replace || !box.value ? text : `${text}\n${box.value}`;
  box.dispatchEvent(new Event("input", { bubbles: true }));
  box.focus();
}

/** The text of files, each as a block of code under its name; what is no text or too long for a message is named and left out. */
async function addFiles(files) {
  for (const file of files) {
    const text = file.size <= LONGEST_FILE ? await file.text() : null;
    if (text === null || text.includes("\0")) { notify(t("composer.fileFault", { name: file.name, n: LONGEST_FILE / 1000 }), "bad"); continue; }
    const fence = "`".repeat(Math.max(3, ...(text.match(/`+/g) ?? []).map((run) => run.length + 1)));
    addWords(`${box.value ? `${box.value}\n` : ""}${file.name}:\n${fence}\n${text.replace(/\n?$/, "\n")}${fence}\n`, true);
  }
}

/** The draft of a chat: kept on the server, or in the browser while the chat is not there. */
function useDraft(id) {
  const timer = useRef(0), of = useRef(null);
  const keep = (now = false) => {
    clearTimeout(timer.current);
    const chat = of.current, text = box?.value ?? "";
    synced = text;
    const go = () => {
      timer.current = 0;
      if (!chat) { try { sessionStorage.setItem(NEW_DRAFT, text); } catch { /* not kept */ } }
      else keepDraft(chat, text, now && text.length < 60_000).catch(() => {});
    };
    if (now) go(); else timer.current = setTimeout(go, PAUSE);
  };
  useLayoutEffect(() => {
    if (of.current !== null && timer.current) keep(true); // the chat that was left
    const before = of.current;
    of.current = id;
    if (before === null || before !== id) {
      const { chat } = store.get();
      // a new chat that has just come to be keeps what was written on meanwhile; another chat brings its own draft
      const stays = before === "" && chat?.messages.length <= 2 && chat?.id === id && !chat.draft;
      if (!stays) {
        let text = id ? chat?.draft ?? "" : "";
        if (!id) { try { text = sessionStorage.getItem(NEW_DRAFT) ?? ""; } catch { /* nothing was kept */ } }
        synced = box.value = text;
        box.dispatchEvent(new Event("input", { bubbles: true }));
        clearTimeout(timer.current);
        timer.current = 0;
      } else {
        try { sessionStorage.removeItem(NEW_DRAFT); } catch { /* nothing was kept */ }
        if (box.value) keep();
      }
    }
  }, [id]);
  useLayoutEffect(() => {
    const leave = () => { if (timer.current) keep(true); };
    addEventListener("pagehide", leave);
    return () => { removeEventListener("pagehide", leave); leave(); };
  }, []);
  return keep;
}

function Count({ text }) {
  const [count, setCount] = useState(null);
  // the prompt is another one in another chat, and after each message
  const chat = useStore((state) => state.chat?.id), newest = useStore((state) => state.chat?.messages.at(-1)?.id);
  useEffect(() => {
    if (!text.trim()) { setCount(null); return; }
    const asking = new AbortController();
    const timer = setTimeout(() => countTokens(text, asking.signal).then(setCount, () => setCount(null)), 250);
    return () => { clearTimeout(timer); asking.abort(); };
  }, [text, chat, newest]);
  if (!count || !text.trim()) return null;
  const whole = count.window ? t("composer.prompt", { prompt: count.prompt_tokens, window: count.window }) : "";
  return html`<span class=${`token-count ${count.dropped_tokens ? "over" : ""}`} title=${count.dropped_tokens ? t("composer.wouldDrop", { n: count.dropped_tokens }) : whole}>
    ${t("composer.tokens", { n: count.tokens })}${count.window ? ` · ${count.prompt_tokens} / ${count.window}` : ""}</span>`;
}

export function Composer() {
  const chatId = useStore((state) => state.chat?.id ?? (state.route.view === "chat" ? state.route.id : "")), name = useStore(speaker);
  const loaded = useStore((state) => !state.route.id || Boolean(state.chat));
  const busy = useStore((state) => Boolean(state.chat?.generation)), pending = useStore((state) => Boolean(state.pending));
  const messages = useStore((state) => state.chat?.messages);
  const [text, setText] = useState(""), [prefill, setPrefill] = useState(null);
  const area = useRef(), chooser = useRef();
  useLayoutEffect(() => { box = area.current; return () => { box = null; }; }, []);
  const keep = useDraft(loaded ? chatId : null);
  useLayoutEffect(() => {
    const element = area.current;
    element.style.height = "auto";
    element.style.height = `${Math.min(LONGEST, element.scrollHeight)}px`;
  }, [text]);
  useLayoutEffect(() => {
    // who moves with the keyboard stays where they are; on a phone the keyboard would cover the talk
    const keyboard = document.activeElement !== document.body && document.activeElement?.matches(":focus-visible") && !document.activeElement.matches("textarea, .new");
    if (!keyboard && matchMedia("(min-width: 821px)").matches) area.current.focus();
  }, [chatId]);
  useLayoutEffect(() => onWords(
    (elsewhere) => { if (!box.value || box.value === synced) { synced = box.value = elsewhere; setText(elsewhere); } },
    (theirs) => addWords(theirs, true),
    (refused) => addWords(refused),
  ), []);

  const last = messages?.at(-1), exchanged = messages?.some((message) => message?.role === "user");
  const submit = async (options = {}) => {
    const said = box.value, of = chatId;
    if (!said.trim() || busy || pending || store.get().rewriting) return;
    box.value = "";
    setText("");
    if (await send(said, { ...(prefill && options.reply !== false && { prefill }), ...options })) { setPrefill(null); keep(); }
    else if ((store.get().chat?.id ?? "") === of || !of) addWords(said); // in front of what was written meanwhile
  };
  const again = () => { if (last && !busy) retry(null, prefill ? { prefill } : {}); };
  const back = async () => {
    const words = await undo();
    if (words && !box.value.trim()) addWords(words, true);
    box.focus();
  };
  useShortcut("retry", () => { again(); }, [last, busy, prefill]);

  const keys = (event) => {
    if (event.isComposing) return;
    const sends = preference("sendWith") === "ctrl" ? event.ctrlKey || event.metaKey : !event.shiftKey && !event.ctrlKey && !event.altKey && !event.metaKey;
    if (event.key === "Enter" && sends) { event.preventDefault(); submit(); }
    if (event.key === "ArrowUp" && !box.value && !busy) {
      const mine = messages?.findLast((message) => message?.role === "user");
      if (mine) { event.preventDefault(); editMessage(mine.id); }
    }
  };
  return html`<div class="composer-frame">
    ${prefill !== null && html`<div class="prefill"><label for="prefill">${t("composer.prefillLabel")}</label><input id="prefill" type="text" value=${prefill} onInput=${(event) => setPrefill(event.currentTarget.value)} />
      <${IconButton} icon="close" label=${t("remove")} onClick=${() => setPrefill(null)} /></div>`}
    <div class="composer" id="composer" onDragOver=${(event) => { if (event.dataTransfer.types.includes("Files")) event.preventDefault(); }}
      onDrop=${(event) => { if (event.dataTransfer.files.length) { event.preventDefault(); addFiles([...event.dataTransfer.files]); } }}>
      <input type="file" hidden multiple ref=${chooser} onChange=${(event) => { addFiles([...event.currentTarget.files]); event.currentTarget.value = ""; }} />
      <${Menu} label=${t("composer.menu")} icon="plus" items=${[
        { label: t("composer.prefill"), icon: "edit", onClick: () => { setPrefill(prefill ?? ""); requestAnimationFrame(() => document.getElementById("prefill")?.focus()); } },
        { label: t("composer.file"), icon: "import", onClick: () => chooser.current.click() },
        { label: t("composer.impersonate"), icon: "people", onClick: () => impersonate(text ? { prefill: text } : {}), disabled: !exchanged || busy },
        { label: t("composer.withoutReply"), icon: "chat", onClick: () => submit({ reply: false }), disabled: !text.trim() || busy },
        { label: t("composer.asThem", { name }), icon: "chat", onClick: () => submit({ reply: false, role: "assistant" }), disabled: !text.trim() || busy },
      ]} />
      <textarea id="message" ref=${area} rows="1" aria-label=${t("composer.label")} placeholder=${t("composer.placeholder", { name })} enterkeyhint="send" autocomplete="off"
        onInput=${(event) => { setText(event.currentTarget.value); keep(); }} onKeyDown=${keys}></textarea>
      <button type="button" class=${`send ${busy ? "stop" : ""}`} onClick=${() => { if (busy) stop(); else submit(); box.focus(); }}>
        <${Icon} name=${busy ? "stop" : "send"} /><span>${busy ? t("composer.stop") : t("composer.send")}</span></button>
    </div>
    <div class="composer-row">
      <${Button} kind="quiet" icon="retry" label=${t("message.retry")} disabled=${!exchanged || busy} onClick=${again} />
      <${Button} kind="quiet" icon="undo" label=${t("composer.undo")} title=${t("composer.undoHelp")} disabled=${!exchanged || busy} onClick=${back} />
      <${Count} text=${text} />
    </div></div>`;
}
