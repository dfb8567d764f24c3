// Parts that every view is made of. All of them have names for screen readers and work with the keyboard.
import { faceOf } from "./connection.js";
import { createPortal, html, useEffect, useId, useLayoutEffect, useRef, useState } from "./html.js";
import { Icon } from "./icons.js";
import { usePicture } from "./pictures.js";
import { store, useStore } from "./store.js";
import { t } from "./strings.js";

/** kind: "plain", "primary", "danger", "quiet". */
export function Button({ label, icon, kind = "plain", children, class: more = "", ...rest }) {
  return html`<button type="button" class=${`button ${kind} ${more}`} ...${rest}>${icon && html`<${Icon} name=${icon} />`}<span>${label ?? children}</span></button>`;
}

export function IconButton({ label, icon, class: more = "", size, ...rest }) {
  return html`<button type="button" class=${`icon-button ${more}`} aria-label=${label} title=${label} ...${rest}><${Icon} name=${icon} size=${size} /></button>`;
}

/** A label above any control: the child gets its id. */
export function Field({ label, help, error, children: make, class: more = "" }) {
  const id = useId();
  return html`<div class=${`field ${more}`}>
    <label for=${id}>${label}</label>
    ${make(id, help || error ? `${id}-help` : undefined)}
    ${(help || error) && html`<p id=${`${id}-help`} class=${error ? "field-error" : "field-help"}>${error || help}</p>`}
  </div>`;
}

export function TextField({ label, help, error, value, onInput, area = false, rows = 3, class: more, ...rest }) {
  return html`<${Field} label=${label} help=${help} error=${error} class=${more}>${(id, about) => html`<${area ? "textarea" : "input"}
    id=${id} aria-describedby=${about} aria-invalid=${error ? "true" : undefined} value=${value} rows=${area ? rows : undefined}
    type=${area ? undefined : rest.type ?? "text"} onInput=${(event) => onInput(event.currentTarget.value)} ...${rest} />`}<//>`;
}

/** options: [[value, label], …] */
export function Select({ label, help, value, options, onChange, class: more, ...rest }) {
  return html`<${Field} label=${label} help=${help} class=${more}>${(id, about) => html`<select id=${id} aria-describedby=${about} value=${value}
    onChange=${(event) => onChange(event.currentTarget.value)} ...${rest}>
    ${options.map(([key, name]) => html`<option key=${key} value=${key} selected=${key === value}>${name}</option>`)}</select>`}<//>`;
}

export function Switch({ label, help, checked, onChange, ...rest }) {
  const id = useId();
  return html`<div class="switch-row"><input type="checkbox" role="switch" id=${id} class="switch" checked=${checked} aria-describedby=${help ? `${id}-help` : undefined}
    onChange=${(event) => onChange(event.currentTarget.checked)} ...${rest} /><label for=${id}>${label}</label>
    ${help && html`<p id=${`${id}-help`} class="field-help">${help}</p>`}</div>`;
}

/**
 * A text while it is written: what comes from elsewhere meanwhile does not reach the field. `hand(text)` is called when its writer leaves it, or
 * pauses for `pause` milliseconds, or the field goes. For the field: its value, onInput, onChange and onBlur.
 */
export function useWriting(value, hand, pause = 0) {
  const [text, setText] = useState(null), unsaid = useRef(null), timer = useRef(0), latest = useRef();
  latest.current = hand;
  const give = () => {
    const written = unsaid.current;
    clearTimeout(timer.current);
    unsaid.current = null;
    if (written !== null) latest.current(written);
  };
  useEffect(() => give, []);
  const write = (now) => {
    setText((unsaid.current = now));
    clearTimeout(timer.current);
    if (pause) timer.current = setTimeout(give, pause);
  };
  return { value: text ?? value, write, onChange: give, onBlur: () => { give(); setText(null); } };
}

/** A range and a number beside it; empty means the server's own value, shown as placeholder. */
export function Slider({ label, help, value, fallback, min, max, step, onChange }) {
  const id = useId(), shown = value ?? fallback;
  const take = (text) => onChange(text === "" || Number.isNaN(Number(text)) ? null : Number(text));
  const { write, ...number } = useWriting(value ?? "", take);
  return html`<div class=${`field slider ${value === undefined || value === null ? "" : "changed"}`}>
    <label id=${`${id}-label`} for=${id}>${label}</label>
    <input type="number" id=${id} min=${min} step="any" placeholder=${fallback} aria-describedby=${help ? `${id}-help` : undefined} onInput=${(event) => write(event.currentTarget.value)} ...${number} />
    <input type="range" aria-labelledby=${`${id}-label`} min=${min} max=${Math.max(max, shown)} step=${step} value=${shown} onInput=${(event) => take(event.currentTarget.value)} />
    ${help && html`<p id=${`${id}-help`} class="field-help">${help}</p>`}
  </div>`;
}

/** A part that opens and closes: <details> with a heading. */
export function Fold({ label, open = false, children, onToggle, class: more = "" }) {
  return html`<details class=${`fold ${more}`} open=${open} onToggle=${onToggle && ((event) => onToggle(event.currentTarget.open))}><summary>${label}</summary><div class="fold-body">${children}</div></details>`;
}

export const Spinner = ({ label }) => html`<span class="spinner" role="status"><span class="spinner-ring" aria-hidden="true"></span>${label && html`<span>${label}</span>`}</span>`;

export const Progress = ({ label, value, max = 1 }) => html`<div class="progress"><span>${label}</span><progress aria-label=${label} value=${value} max=${max}></progress></div>`;

export const Empty = ({ icon, title, children }) => html`<div class="empty">${icon && html`<${Icon} name=${icon} size=${36} />`}<h2>${title}</h2>${children}</div>`;

/** The head of a view beside the chat: its heading, and what can be done. */
export const ViewHead = ({ title, about, children }) => html`<header class="view-head"><${SideToggle} /><div><h1>${title}</h1>${about && html`<p>${about}</p>`}</div><div class="view-actions">${children}</div></header>`;

/** Is there room for the side bar beside the rest? */
export const isWide = () => matchMedia("(min-width: 821px)").matches;
export const SideToggle = () => html`<${IconButton} class="side-toggle" icon="menu" label=${t("side.open")} aria-expanded=${store.get().sideOpen ? "true" : "false"} onClick=${() => store.set(isWide() ? { sideFolded: false } : { sideOpen: true })} />`;

/** items: [{label, icon, onClick, danger, disabled, separator}]; a button that opens a menu, with arrow keys and Escape. */
export function Menu({ label, icon = "more", items, class: more = "", button, tab }) {
  const [place, setPlace] = useState(null);
  const opener = useRef(), list = useRef();
  const open = () => {
    const box = opener.current.getBoundingClientRect();
    const below = innerHeight - box.bottom > 280 || box.top < 280;
    setPlace({ right: Math.max(8, Math.min(innerWidth - box.right, innerWidth - 216)), ...(below ? { top: box.bottom + 4 } : { bottom: innerHeight - box.top + 4 }) });
  };
  const close = (back = true) => { setPlace(null); if (back) opener.current?.focus(); };
  useLayoutEffect(() => { if (place) list.current.querySelector("[role=menuitem]:not(:disabled)")?.focus(); }, [place]);
  useLayoutEffect(() => {
    if (!place) return;
    const outside = (event) => { if (!list.current?.contains(event.target) && !opener.current?.contains(event.target)) close(false); };
    const away = () => close(false);
    addEventListener("pointerdown", outside, true);
    addEventListener("resize", away);
    return () => { removeEventListener("pointerdown", outside, true); removeEventListener("resize", away); };
  }, [place]);
  const keys = (event) => {
    const all = [...list.current.querySelectorAll("[role=menuitem]:not(:disabled)")], at = all.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
    if (to !== undefined) { all.at(to % all.length)?.focus(); event.preventDefault(); }
    if (event.key === "Escape") { close(); event.stopPropagation(); event.preventDefault(); }
    if (event.key === "Tab") close(false);
  };
  const style = place && Object.fromEntries(Object.entries(place).map(([side, at]) => [side, `${at}px`]));
  return html`<button type="button" ref=${opener} class=${button ? `button ${more}` : `icon-button ${more}`} aria-label=${button ? undefined : label} title=${label} tabindex=${tab} aria-haspopup="menu"
      aria-expanded=${place ? "true" : "false"} onClick=${() => (place ? close() : open())}><${Icon} name=${icon} />${button && html`<span>${label}</span>`}</button>
    ${place && createPortal(html`<div class="menu" role="menu" aria-label=${label} ref=${list} style=${style} onKeyDown=${keys}>
      ${items.filter(Boolean).map((item) => html`<button type="button" role="menuitem" key=${item.label} class=${item.danger ? "danger" : ""} disabled=${item.disabled}
        onClick=${() => { close(); item.onClick(); }}>${item.icon && html`<${Icon} name=${item.icon} />`}${item.label}</button>`)}</div>`, document.body)}`;
}

/** A modal dialog: <dialog> keeps the focus and hears Escape. `onClose` is called however it ends; without it the dialog stays. */
export function Dialog({ title, children, onClose, wide = false }) {
  const dialog = useRef(), id = useId(), alive = useRef(true);
  useLayoutEffect(() => {
    const node = dialog.current;
    node.showModal();
    node.querySelector("[autofocus]")?.focus();
    return () => { alive.current = false; node.close(); }; // which gives the focus back
  }, []);
  return html`<dialog ref=${dialog} class=${wide ? "wide" : ""} aria-labelledby=${id} onClose=${() => { if (alive.current) onClose?.(); }} onCancel=${(event) => { event.preventDefault(); onClose?.(); }}
    onClick=${(event) => { if (event.target === dialog.current) onClose?.(); }}>
    <div class="dialog-body"><header><h2 id=${id}>${title}</h2>${onClose && html`<${IconButton} icon="close" label=${t("close")} onClick=${onClose} />`}</header>${children}</div></dialog>`;
}

/** Open a dialog made by `render(close)`; resolves with what `close` is given. */
export const openDialog = (render) => new Promise((resolve) => store.set({ dialog: { render, resolve } }));
const closeDialog = (value) => { const { dialog } = store.get(); store.set({ dialog: null }); dialog?.resolve(value); };

/** The dialog that `openDialog` asked for; stands once, in the shell. */
export function DialogHost({ dialog }) {
  return dialog ? dialog.render(closeDialog) : null;
}

/** true where the person agrees. */
export const confirmed = (title, text, action, danger = true) => openDialog((close) => html`<${Dialog} title=${title} onClose=${() => close(false)}>
  <p>${text}</p><footer><${Button} label=${t("cancel")} autofocus onClick=${() => close(false)} /><${Button} kind=${danger ? "danger" : "primary"} label=${action} onClick=${() => close(true)} /></footer><//>`);

/** A line of text from the person, or null. */
export const asked = (title, label, value = "", action = t("save")) => openDialog((close) => html`<${AskLine} ...${{ title, label, value, action, close }} />`);

function AskLine({ title, label, value, action, close }) {
  const [text, setText] = useState(value), field = useRef();
  useLayoutEffect(() => field.current?.querySelector("input")?.select(), []);
  return html`<${Dialog} title=${title} onClose=${() => close(null)}><form ref=${field} onSubmit=${(event) => { event.preventDefault(); close(text); }}>
    <${TextField} label=${label} value=${text} onInput=${setText} autofocus maxlength="120" autocomplete="off" />
    <footer><${Button} label=${t("cancel")} onClick=${() => close(null)} /><button class="button primary" type="submit"><span>${action}</span></button></footer></form><//>`;
}

/** A portrait; the name stands beside it, so it needs none. Whom the server does not have gets an initial. */
export function Face({ id, size = 36 }) {
  const served = useStore((state) => faceOf(state.models, id)), version = useStore((state) => state.portraits ?? 0);
  const path = served ? `townhall/characters/${encodeURIComponent(served)}/portrait${version ? `?v=${version}` : ""}` : `portraits/${encodeURIComponent(id || "?")}.svg`;
  const src = usePicture(path);
  return html`<img class="face" src=${src} alt="" width=${size} height=${size} />`;
}

/** A button that copies `text()` and says so. */
export function CopyButton({ text, label = t("copy"), class: more = "", ...rest }) {
  const [done, setDone] = useState(false);
  const copy = async () => {
    await copyText(text());
    setDone(true);
    setTimeout(() => setDone(false), 2000);
  };
  return html`<${IconButton} class=${more} icon=${done ? "check" : "copy"} size=${16} label=${done ? t("copied") : label} onClick=${copy} ...${rest} />`;
}

/** To the clipboard; pages without TLS on another machine have no clipboard of their own. */
export async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = Object.assign(document.createElement("textarea"), { value: text, className: "unseen" });
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** A place to drop files, or to choose them with the keyboard. */
export function FileDrop({ label, accept, multiple = false, onFiles }) {
  const [over, setOver] = useState(false), id = useId();
  return html`<div class=${`file-drop ${over ? "over" : ""}`} onDragOver=${(event) => { event.preventDefault(); setOver(true); }} onDragLeave=${() => setOver(false)}
    onDrop=${(event) => { event.preventDefault(); setOver(false); onFiles([...event.dataTransfer.files]); }}>
    <${Icon} name="import" size=${26} /><label for=${id}>${label}</label>
    <input id=${id} type="file" accept=${accept} multiple=${multiple} onChange=${(event) => { onFiles([...event.currentTarget.files]); event.currentTarget.value = ""; }} /></div>`;
}
