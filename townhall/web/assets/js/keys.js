// Keyboard shortcuts of the whole page, and the dialog that lists them.
import { html, useLayoutEffect } from "./html.js";
import { Dialog, openDialog } from "./components.js";
import { go } from "./router.js";
import { store } from "./store.js";
import { t } from "./strings.js";

export const SHORTCUTS = [
  ["?", "keys.help"], ["Alt + N", "keys.new"], ["/", "keys.search"], ["Alt + S", "keys.settings"], ["Enter", "keys.send"], ["Shift + Enter", "keys.line"],
  ["Esc", "keys.stop"], ["↑", "keys.edit"], ["Alt + ←  Alt + →", "keys.swipe"], ["Alt + R", "keys.retry"], ["Alt + C", "keys.continue"],
];

const handlers = new Map(); // name → functions, the newest last

/** Call `handler` for the shortcut of that name while the component is there; as it was when one of `inputs` last changed. */
export function useShortcut(name, handler, inputs = []) {
  // in the same task as the page's change: a key pressed before the next frame belongs to what is already seen
  useLayoutEffect(() => {
    handlers.set(name, [...(handlers.get(name) ?? []), handler]);
    return () => handlers.set(name, handlers.get(name).filter((one) => one !== handler));
  }, inputs);
}
/** The newest handler that has something to do does it; one that returns false had nothing to do. */
const run = (name) => [...(handlers.get(name) ?? [])].reverse().some((handler) => handler() !== false);

export const helpDialog = () => openDialog((close) => html`<${Dialog} title=${t("help.title")} onClose=${close}>
  <dl class="shortcuts">${SHORTCUTS.map(([keys, about]) => html`<div key=${about}><dt>${keys.split(/ ?\+ ?| {2}/).map((key, at) => html`<kbd key=${at}>${key}</kbd>`)}</dt><dd>${t(about)}</dd></div>`)}</dl>
  <p class="field-help">${t("help.more")}</p><//>`);

const ALT = { n: "new", s: "settings", r: "retry", c: "continue", ArrowLeft: "swipe-left", ArrowRight: "swipe-right" };

export function startKeys() {
  addEventListener("keydown", (event) => {
    if (event.isComposing || event.defaultPrevented || store.get().dialog) return;
    const writing = event.target.matches?.("input:not([type=radio]):not([type=checkbox]):not([type=range]), textarea, select, [contenteditable]");
    let done = false;
    if (event.key === "Escape") {
      if (store.get().sideOpen) { store.set({ sideOpen: false }); done = true; }
      else done = run("stop") || run("close");
    } else if (event.altKey && !event.ctrlKey && !event.metaKey) {
      const name = ALT[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      done = Boolean(name) && (name === "new" ? (go("chat"), true) : run(name));
    } else if (!writing && !event.ctrlKey && !event.metaKey) {
      if (event.key === "?") { helpDialog(); done = true; }
      if (event.key === "/") { go("search"); done = true; }
    }
    if (done) event.preventDefault();
  });
}
