// Above the composer: one's own question beside the rewritten one, to be taken, edited or refused. In the settings: whether that is asked for.
import { html, useLayoutEffect, useRef, useState } from "./html.js";
import { Button, Select, Spinner, TextField } from "./components.js";
import { useShortcut } from "./keys.js";
import { MESSAGE_NOTES } from "./message.js";
import { SETTINGS_SECTIONS } from "./settings_panel.js";
import { useStore } from "./store.js";
import { t } from "./strings.js";

export function EnrichPanel() {
  const rewriting = useStore((state) => state.rewriting);
  if (!rewriting) return null;
  const { own, offered, choose } = rewriting;
  if (offered) return html`<${Comparison} key=${offered.text} own=${own} offered=${offered} choose=${choose} />`;
  return html`<div class="enrich row"><${Spinner} label=${t("enrich.busy")} /><${Button} label=${t("enrich.asItIs")} onClick=${() => choose(own)} />
    <${Button} kind="quiet" label=${t("enrich.back")} onClick=${() => choose(null)} /></div>`;
}

function Comparison({ own, offered, choose }) {
  const [text, setText] = useState(offered.text), view = useRef();
  useLayoutEffect(() => { view.current.querySelector("textarea").focus(); }, []);
  useShortcut("close", () => { choose(null); document.getElementById("message")?.focus(); });
  const done = (words) => { choose(words); document.getElementById("message")?.focus(); };
  const take = () => { if (text.trim()) done(text); };
  const keys = (event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) { event.preventDefault(); take(); } };
  return html`<section class="enrich" role="group" aria-label=${t("enrich.title")} ref=${view} onKeyDown=${keys}>
    <div class="two"><div class="field"><span class="field-label">${t("enrich.own")}</span><p class="plain own-words" dir="auto" tabindex="0">${own}</p></div>
      <${TextField} label=${t("enrich.offered")} area rows=${2} value=${text} onInput=${setText} dir="auto" /></div>
    ${(offered.facts.length > 0 || offered.form) && html`<p class="field-help">${t("enrich.added")} ${[...offered.facts, offered.form].filter(Boolean).map((one, at) => html`<span class="chip" key=${at}><bdi>${one}</bdi></span> `)}</p>`}
    <div class="row"><${Button} kind="primary" label=${t("enrich.take")} onClick=${take} disabled=${!text.trim()} /><${Button} label=${t("enrich.refuse")} onClick=${() => done(own)} />
      <${Button} kind="quiet" label=${t("enrich.back")} onClick=${() => done(null)} /></div></section>`;
}

/** Below a message that was offered in other words: those that were not sent. */
function EnrichedNote({ message }) {
  if (!message.enriched) return null;
  const { own, offered } = message.enriched, refused = message.text === own;
  const said = refused ? "enrich.refused" : message.text === offered ? "enrich.taken" : "enrich.edited";
  return html`<details class="sources"><summary>${t(said)}</summary><p><b>${t(refused ? "enrich.offered" : "enrich.own")}:</b> <bdi class="plain">${refused ? offered : own}</bdi></p>
    ${!refused && message.text !== offered && html`<p><b>${t("enrich.offered")}:</b> <bdi class="plain">${offered}</bdi></p>`}</details>`;
}

function EnrichSection({ settings, change }) {
  const able = useStore((state) => (state.chat ? state.chat.enrich : state.controls?.enrich) !== undefined);
  if (!able) return null;
  return html`<${Select} label=${t("enrich.setting")} help=${t("enrich.settingHelp")} value=${settings.enrich ?? ""}
    options=${[["", t("enrich.default")], ["off", t("off")], ["ask", t("enrich.ask")], ["always", t("enrich.always")]]} onChange=${(chosen) => change({ enrich: chosen || null })} />`;
}

SETTINGS_SECTIONS.push(EnrichSection);
MESSAGE_NOTES.push(EnrichedNote);
