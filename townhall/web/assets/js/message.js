// One message of either side: its words, its versions, and what can be done with it.
import { html, useLayoutEffect, useRef, useState } from "./html.js";
import { branch, carryOn, choose, edit, remove, retry, setRating } from "./chat_state.js";
import { Button, confirmed, CopyButton, Face, IconButton, Menu } from "./components.js";
import { useShortcut } from "./keys.js";
import { Markdown, Plain } from "./markdown.js";
import { memo } from "./memo.js";
import { retryDialog } from "./retry_dialog.js";
import { t, when } from "./strings.js";
import { Thoughts } from "./thoughts.js";
import { TokenView } from "./token_view.js";

/** Components shown below a message, each with {message}: where its passages came from, for one. */
export const MESSAGE_NOTES = [];

const editors = new Map(); // id → open the editor of that message
export const editMessage = (id) => editors.get(id)?.();

/** What the reply's end and its receipt have to say; `forgotten`: messages that an earlier receipt spoke of. */
function notesOf(message, forgotten) {
  const lines = [], { receipt } = message;
  if (message.finish_reason === "length") lines.push(t("talk.length"));
  if (message.finish_reason === "interrupted") lines.push(t("talk.interrupted"));
  const dropped = receipt?.dropped ?? 0;
  if (receipt?.dropped_tokens && dropped > (forgotten ?? 0)) {
    const said = { tokens: receipt.dropped_tokens, window: receipt.window, strategy: receipt.strategy };
    lines.push(forgotten ? t("talk.forgotMore", { n: dropped - forgotten, ...said }) : t("talk.forgot", { n: dropped, ...said }));
  }
  return lines;
}

function Swipes({ message, busy, last, tab }) {
  const { swipe_ids: ids = [], swipe } = message, mine = message.role === "user";
  if (ids.length < 2 && (mine || !last || message.greeting)) return null;
  const next = ids[swipe + 1];
  return html`<span class="swipes"><${IconButton} icon="left" size=${15} label=${t("swipe.previous")} tabindex=${tab} disabled=${busy || !swipe} onClick=${() => choose(ids[swipe - 1])} />
    <span class="swipe-count" aria-label=${t("swipe.count", { at: swipe + 1, of: Math.max(1, ids.length) })}>${swipe + 1}/${Math.max(1, ids.length)}</span>
    <${IconButton} icon="right" size=${15} label=${next || mine ? t("swipe.next") : t("swipe.another")} tabindex=${tab} disabled=${busy || (!next && (mine || !last || message.greeting))}
      onClick=${() => (next ? choose(next) : retry(message.id))} /></span>`;
}

function Editor({ message, close }) {
  const [text, setText] = useState(message.text), area = useRef(), mine = message.role === "user";
  useLayoutEffect(() => {
    area.current.focus();
    area.current.setSelectionRange(text.length, text.length);
  }, []);
  useLayoutEffect(() => { area.current.style.height = "auto"; area.current.style.height = `${Math.min(420, area.current.scrollHeight + 2)}px`; }, [text]);
  useShortcut("close", close);
  const save = async (again) => { if (text.trim() && await edit(message.id, text, { again })) close(); };
  const keys = (event) => {
    if (event.key === "Escape") { close(); event.stopPropagation(); event.preventDefault(); }
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { save(mine); event.preventDefault(); }
  };
  return html`<div class="editor"><textarea ref=${area} aria-label=${t("message.editLabel")} value=${text} onInput=${(event) => setText(event.currentTarget.value)} onKeyDown=${keys}></textarea>
    <div class="row">${mine && html`<${Button} kind="primary" label=${t("message.sendAgain")} onClick=${() => save(true)} />`}
      <${Button} kind=${mine ? "plain" : "primary"} label=${t("save")} onClick=${() => save(false)} /><${Button} kind="quiet" label=${t("cancel")} onClick=${close} /></div></div>`;
}

export const Message = memo(({ message, place, of, last, beforeLast, current, busy, model, forgotten, rate, wanted }) => {
  const [editing, setEditing] = useState(false), [tokens, setTokens] = useState(false);
  const mine = message.role === "user", live = message.live, name = mine ? t("talk.you") : message.name;
  const tab = current ? 0 : -1, row = useRef();
  useLayoutEffect(() => { editors.set(message.id, () => setEditing(true)); return () => editors.delete(message.id); }, [message.id]);
  const close = () => { setEditing(false); row.current?.focus({ preventScroll: true }); };
  const removeBelow = async () => { if (await confirmed(t("message.deleteTitle"), t("message.deleteText"), t("delete"))) remove(message.id, true); };
  const notes = mine ? [] : notesOf(message, forgotten);
  const menu = [
    !mine && !message.greeting && { label: t("message.retryWith"), icon: "settings", onClick: () => retryDialog(message.id), disabled: busy },
    !mine && !last && !message.greeting && { label: t("message.retry"), icon: "retry", onClick: () => retry(message.id), disabled: busy },
    { label: t("message.branch"), icon: "branch", onClick: () => branch(message.id, false), disabled: busy || last },
    { label: t("message.branchChat"), icon: "chat", onClick: () => branch(message.id, true), disabled: busy },
    !mine && !message.greeting && !message.receipt?.sent && { label: tokens ? t("message.text") : t("message.probabilities"), icon: "target", onClick: () => setTokens(!tokens), disabled: busy },
    { label: t("message.delete"), icon: "trash", danger: true, onClick: () => remove(message.id, false), disabled: busy },
    !last && { label: t("message.deleteBelow"), icon: "trash", danger: true, onClick: removeBelow, disabled: busy },
  ];
  const tools = !live && !editing && html`<div class="message-tools" role="toolbar" aria-label=${t("message.actions")}>
    <${Swipes} ...${{ message, busy, last, tab }} />
    <${CopyButton} text=${() => message.text} tabindex=${tab} />
    <${IconButton} icon="edit" size=${16} label=${t("message.edit")} tabindex=${tab} disabled=${busy} onClick=${() => setEditing(true)} />
    ${!mine && last && !message.greeting && html`<${IconButton} icon="continue" size=${16} label=${t("message.continue")} tabindex=${tab} disabled=${busy} onClick=${() => carryOn()} />`}
    ${!mine && !message.greeting && ["good", "bad"].map((rating) => html`<${IconButton} icon="thumb" class=${rating} size=${16} label=${t(`rating.${rating}`)} tabindex=${tab} disabled=${busy}
      aria-pressed=${message.rating === rating} onClick=${() => setRating(message.id, message.rating === rating ? null : rating)} />`)}
    ${tokens && html`<${IconButton} icon="close" size=${16} label=${t("message.text")} tabindex=${tab} onClick=${() => setTokens(false)} />`}
    <${Menu} label=${t("more")} items=${menu} tab=${tab} />
    ${rate && html`<span class="rate">${t("talk.rate", { tokens: rate.tokens, rate: Math.round(rate.rate * 10) / 10 })}</span>`}
  </div>`;
  return html`<article class=${`message ${mine ? "mine" : "theirs"} ${live ? "live" : ""} ${last ? "last" : ""} ${wanted ? "wanted" : ""}`} ref=${row} data-id=${message.id}
      tabindex=${tab} aria-label=${name} aria-posinset=${place + 1} aria-setsize=${of}>
    ${!mine && html`<${Face} id=${model ?? message.name} size=${34} />`}
    <div class="message-body">
      <div class="message-head"><p class="message-name"><bdi>${name}</bdi>${message.at && html`<time datetime=${message.at}>${when(message.at)}</time>`}${message.edited && html`<span>${t("talk.edited")}</span>`}</p>${!last && tools}</div>
      <div class="bubble">
        ${message.reasoning && html`<${Thoughts} text=${message.reasoning} live=${live && !message.text} />`}
        ${editing ? html`<${Editor} message=${message} close=${close} />`
          : tokens ? html`<${TokenView} message=${message} />`
          : mine ? html`<${Plain} text=${message.text} />`
          : message.text || !live ? html`<${Markdown} text=${message.text} live=${Boolean(live)} />`
          : !message.reasoning && html`<p class="waiting">${message.state === "reading" ? t("talk.reading") : t("talk.waiting")}</p>`}
        ${notes.map((line) => html`<p class="note">${line}</p>`)}
        ${MESSAGE_NOTES.map((Note, at) => html`<${Note} key=${at} message=${message} />`)}
      </div>
      ${last && tools}
    </div></article>`;
});
