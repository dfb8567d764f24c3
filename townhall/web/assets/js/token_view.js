// A reply token by token: how likely each was, what else could have stood there, and a way to go on from that.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { alternative, logprobs, problem } from "./chat_state.js";
import { Spinner } from "./components.js";
import { t } from "./strings.js";

const share = (logprob) => { if (logprob === null) return "?"; const value = 100 * Math.exp(logprob); return value < 1 ? value.toFixed(2) : value.toFixed(0); };
const shade = (logprob) => (logprob === null ? "" : ["likely", "fair", "rare"][logprob > Math.log(0.6) ? 0 : logprob > Math.log(0.15) ? 1 : 2]);
const visible = (text) => text.replace(/\n/g, "⏎") || "∅";

export function TokenView({ message }) {
  const [tokens, setTokens] = useState(null), [at, setAt] = useState(null), view = useRef(), panel = useRef();
  useEffect(() => {
    let wanted = true;
    logprobs(message.id).then((answer) => { if (wanted) setTokens(answer.tokens); }, (error) => { problem(error); if (wanted) setTokens([]); });
    return () => { wanted = false; };
  }, [message.id, message.text]);
  // under the token, within the message
  useLayoutEffect(() => {
    if (at === null || !panel.current) return;
    const token = view.current.querySelectorAll(".token")[at], last = [...token.getClientRects()].at(-1), frame = view.current.getBoundingClientRect();
    if (!last) return;
    panel.current.style.top = `${last.bottom - frame.top + 4}px`;
    panel.current.style.left = `${Math.max(0, Math.min(last.left - frame.left, frame.width - panel.current.offsetWidth))}px`;
    panel.current.scrollIntoView({ block: "nearest" });
  }, [at]);
  if (!tokens) return html`<${Spinner} label=${t("loading")} />`;
  const keys = (event) => {
    const to = { ArrowRight: (at ?? -1) + 1, ArrowLeft: (at ?? 1) - 1 }[event.key];
    if (to !== undefined && tokens[to] && !event.altKey) { setAt(to); view.current.querySelectorAll(".token")[to].focus(); event.preventDefault(); event.stopPropagation(); }
    if (event.key === "Escape" && at !== null) { setAt(null); event.preventDefault(); event.stopPropagation(); }
  };
  const chosen = at !== null ? tokens[at] : null;
  return html`<div class="token-view" ref=${view} onKeyDown=${keys} role="group" aria-label=${t("token.list")}><p class="plain">${tokens.map((token, n) => html`<span key=${n} role="button" class=${`token ${shade(token.logprob)}`} tabindex=${n === (at ?? 0) ? 0 : -1}
      aria-expanded=${n === at ? "true" : "false"} title=${t("token.of", { text: visible(token.text), share: share(token.logprob) })}
      onMouseEnter=${() => setAt(n)} onFocus=${() => setAt(n)} onClick=${() => setAt(n)}>${token.text}</span>`)}</p>
    ${chosen && html`<div class="alternatives" ref=${panel} role="group" aria-label=${t("token.alternatives", { text: visible(chosen.text) })}>
      <p><b>${t("token.alternatives", { text: visible(chosen.text) })}</b></p>
      <div class="row">${chosen.top.map((one) => html`<button type="button" class="chip" key=${one.id} aria-pressed=${one.id === chosen.id ? "true" : "false"} disabled=${one.id === chosen.id}
        onClick=${() => alternative(message.id, at, one.id)}><code>${visible(one.text)}</code> ${share(one.logprob)} %</button>`)}</div>
      <p class="field-help">${t("token.help")}</p></div>`}</div>`;
}
