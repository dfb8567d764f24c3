// How the context window is filled, as a meter with a legend.
import { html } from "./html.js";
import { useStore } from "./store.js";
import { t } from "./strings.js";

const PARTS = ["pinned", "memory", "recent", "reserve", "free"];

/** The parts of the window after a reply, in tokens; they add up to the window. */
export function sharesOf(receipt, usage) {
  const window = receipt.window ?? 0, pinned = receipt.pinned_tokens ?? 0, memory = receipt.memory_tokens ?? 0, reserve = receipt.reserve_tokens ?? 0;
  const recent = Math.max(0, (usage?.prompt_tokens ?? receipt.prompt_tokens ?? 0) - pinned - memory + (usage?.completion_tokens ?? 0));
  const free = Math.max(0, window - pinned - memory - recent - reserve);
  return { pinned, memory, recent, reserve: Math.max(0, window - pinned - memory - recent - free), free };
}

export function ContextBar() {
  const message = useStore((state) => state.chat?.messages.findLast((one) => one?.receipt)), label = t("window.label");
  const window = message?.receipt.window;
  if (!window) return html`<div class="window"><div class="track" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax="1" aria-valuenow="0" aria-valuetext=${t("window.nothing")}></div><span class="legend">${t("window.empty")}</span></div>`;
  const shares = sharesOf(message.receipt, message.usage);
  const shown = PARTS.filter((part) => part !== "memory" || shares.memory);
  const words = shown.map((part) => `${t(`window.${part}`)} ${shares[part]}`).join(", ");
  return html`<div class="window"><div class="track" role="meter" aria-label=${label} aria-valuemin="0" aria-valuemax=${window} aria-valuenow=${window - shares.free} aria-valuetext=${t("window.of", { parts: words, window })}>
      ${shown.slice(0, -1).map((part) => html`<span key=${part} class=${part} style=${{ width: `${(100 * shares[part]) / window}%` }}></span>`)}</div>
    <span class="legend">${shown.map((part) => html`<span class="key" key=${part} title=${t(`window.${part}Help`)}><i class=${part}></i><span>${t(`window.${part}`)} ${shares[part]}</span></span>`)}</span></div>`;
}
