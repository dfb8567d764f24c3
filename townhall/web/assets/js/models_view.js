// Models: which one is loaded and on what device, what models take of the memory as a picture, and how fast replies come.
import { html, useCallback, useEffect, useRef, useState } from "./html.js";
import { get } from "./api.js";
import { failed } from "./character_actions.js";
import { Select, Spinner, ViewHead } from "./components.js";
import { ModelFiles } from "./model_files.js";
import { ROOT, round, size } from "./model_units.js";
import { t } from "./strings.js";

const PULSE = 1000; // milliseconds
const CONTEXTS = [1024, 2048, 4096, 8192, 16384, 32768], SLOTS = [1, 2, 4, 8, 16];
const PARTS = ["weights", "cache", "scratch", "process"];

export default function ModelsView() {
  const [found, setFound] = useState(null);
  const look = useCallback(() => get(ROOT).then(setFound, failed), []);
  useEffect(() => { look(); }, []);
  return html`<div class="view models"><${ViewHead} title=${t("models.title")} about=${t("models.about")} />
    ${!found && html`<${Spinner} label=${t("loading")} />`}
    ${found && html`<div class="stack"><${Loaded} loaded=${found.loaded} /><${Meter} /><${Memory} models=${found.models} /><${ModelFiles} found=${found} look=${look} /></div>`}</div>`;
}

function Loaded({ loaded }) {
  if (!loaded) return html`<p class="remark" role="status">${t("server.loading")}</p>`;
  const rows = [["models.model", loaded.name ?? loaded.id], ["models.device", loaded.description || loaded.device], ["models.window", t("models.tokens", { n: loaded.context })], loaded.slots && ["models.slots", loaded.slots], loaded.memory > 0 && ["models.memory", size(loaded.memory)]];
  return html`<section class="card" aria-label=${t("models.loaded")}><h2>${t("models.loaded")}</h2><dl class="facts">${rows.filter(Boolean).map(([name, value]) => html`<div key=${name}><dt>${t(name)}</dt><dd><bdi>${value}</bdi></dd></div>`)}</dl></section>`;
}

const share = (part, whole) => Math.round((100 * part) / whole);

/** Tokens a second of the replies that ended lately; asked for once a second while the page is seen. */
function Meter() {
  const [now, setNow] = useState(null), last = useRef(null), rates = useRef([]);
  useEffect(() => {
    const leave = new AbortController();
    let timer = 0;
    const look = async () => {
      try {
        if (!document.hidden) {
          const found = await get(`${ROOT}/meter`, { signal: leave.signal }), before = last.current;
          if (before && found.replies > before.replies) rates.current = [...rates.current.slice(-29), (found.rate_sum - before.rate_sum) / (found.replies - before.replies)];
          last.current = found;
          setNow(found);
        }
      } catch (error) { if (error.name === "AbortError") return; }
      timer = setTimeout(look, PULSE);
    };
    look();
    return () => { leave.abort(); clearTimeout(timer); };
  }, []);
  const rate = rates.current.at(-1) ?? now?.tokens_per_second, most = Math.max(1, ...rates.current);
  return html`<section class="card" aria-label=${t("models.meter")}><h2>${t("models.meter")}</h2>
    <p class="speed"><b>${rate ? round(rate, 1) : "–"}</b> ${t("models.rate")}</p>
    ${rates.current.length > 1 && html`<div class="bars" aria-hidden="true">${rates.current.map((one, at) => html`<span key=${at} style=${{ height: `${Math.max(4, (one / most) * 36)}px` }}></span>`)}</div>`}
    ${now && html`<p class="faint">${t("models.counts", { replies: now.replies, tokens: now.completion_tokens, active: now.active, waiting: now.waiting })}</p>`}
    ${now?.prefix_cache.queries > 0 && html`<p class="faint">${t("models.cached", { share: share(now.prefix_cache.hits, now.prefix_cache.queries), n: now.prefix_cache.queries })}</p>`}
    ${now?.speculation?.draft > 0 && html`<p class="faint">${t("models.guesses", { share: share(now.speculation.accepted, now.speculation.draft), n: now.speculation.draft })}</p>`}</section>`;
}

/** The picture of `townhall fit`: a bar for each device, its models' parts to scale, and the same in words. */
function Memory({ models }) {
  const able = models.filter((one) => !one.fault), [chosen, setChosen] = useState([]), [context, setContext] = useState(""), [slots, setSlots] = useState(""), [plan, setPlan] = useState(null), newest = useRef(0);
  const look = useCallback(async () => {
    const mine = ++newest.current;
    const query = new URLSearchParams([...chosen.map((name) => ["model", name]), ...(context ? [["context", context]] : []), ...(slots ? [["slots", slots]] : [])]);
    try {
      const found = await get(`${ROOT}/fit?${query}`);
      if (mine === newest.current) setPlan(found); // an answer to an earlier choice may come later
    } catch (error) { failed(error); }
  }, [chosen, context, slots]);
  useEffect(() => { look(); }, [look]);
  const toggle = (name, on) => setChosen((before) => (on ? [...before, name] : before.filter((one) => one !== name)));
  return html`<section class="card stack" aria-label=${t("models.picture")}><h2>${t("models.picture")}</h2><p class="field-help">${t("models.pictureHelp")}</p>
    <div class="two"><${Select} label=${t("models.window")} value=${context} options=${[["", t("models.asNow")], ...CONTEXTS.map((n) => [String(n), t("models.tokens", { n })])]} onChange=${setContext} />
      <${Select} label=${t("models.slots")} value=${slots} options=${[["", t("models.asNow")], ...SLOTS.map((n) => [String(n), String(n)])]} onChange=${setSlots} /></div>
    ${able.length > 0 && html`<fieldset class="choices"><legend>${t("models.which")}</legend>${able.slice(0, 12).map((one) => html`<label key=${one.name}><input type="checkbox" checked=${chosen.includes(one.name)} onChange=${(event) => toggle(one.name, event.currentTarget.checked)} /> <bdi>${one.name}</bdi></label>`)}</fieldset>`}
    ${!plan && html`<${Spinner} label=${t("loading")} />`}
    ${plan?.devices.map((device) => html`<${Device} key=${device.name} device=${device} />`)}
    <div role="status">${plan?.unplaced.map((one) => html`<p class="remark" key=${one.name}><span>${t("models.noRoom", { name: one.name, nbytes: size(one.nbytes), missing: size(one.missing), device: one.device })} ${one.remedies.length > 0 && t("models.remedies", { remedies: one.remedies.join("; ") })}</span></p>`)}</div>
    ${plan?.resident && html`<p class="faint">${t("models.resident", { size: size(plan.resident) })}</p>`}</section>`;
}

function Device({ device }) {
  const wide = (bytes) => ({ width: `${Math.max(0, (bytes / device.memory) * 100)}%` });
  const words = device.models.map((one) => `${one.name} ${size(one.nbytes)}`).join(", ") || t("models.nothing");
  return html`<figure class="device"><figcaption><b>${device.name}</b> <span class="faint">${t("models.room", { memory: size(device.memory), free: size(Math.max(0, device.free)) })}</span>${device.about && html`<span class="faint"> · ${device.about.replace(/^[\w:]+: /, "")}</span>`}</figcaption>
    <div class="memory-bar" role="img" aria-label=${`${device.name}: ${words}, ${t("models.reserve")} ${size(device.reserve)}`}>
      ${device.models.map((one) => html`<span class="block" key=${one.name} style=${wide(one.nbytes)}>${PARTS.filter((part) => one[part] > 0).map((part) => html`<i key=${part} class=${`part ${part}`} style=${{ flexGrow: one[part] }} title=${`${one.name}: ${t(`models.part.${part}`)} ${size(one[part])}`}></i>`)}</span>`)}
      <span class="rest"></span><span class="kept" style=${wide(device.reserve)} title=${`${t("models.reserve")} ${size(device.reserve)}`}></span></div>
    <ul class="legend">${PARTS.map((part) => html`<li key=${part}><i class=${`part ${part}`}></i>${t(`models.part.${part}`)}</li>`)}<li><i class="kept"></i>${t("models.reserve")}</li></ul>
    ${device.models.length > 0 && html`<div class="scroll" tabindex="0" role="group" aria-label=${t("models.figures", { name: device.name })}><table class="table"><thead><tr><th scope="col">${t("models.model")}</th><th scope="col">${t("models.total")}</th>${PARTS.map((part) => html`<th scope="col" key=${part}>${t(`models.part.${part}`)}</th>`)}</tr></thead>
      <tbody>${device.models.map((one, at) => html`<tr key=${at}><th scope="row"><bdi>${one.name}</bdi></th><td>${size(one.nbytes)}</td>${PARTS.map((part) => html`<td key=${part}>${one[part] ? size(one[part]) : "–"}</td>`)}</tr>`)}</tbody></table></div>`}</figure>`;
}
