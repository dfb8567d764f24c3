// The checkpoints that are there. Where the server holds several, each is loaded, unloaded and pinned here, with its progress; elsewhere the page gives the command.
import { html, useEffect, useRef, useState } from "./html.js";
import { post } from "./api.js";
import { failed } from "./character_actions.js";
import { Button, CopyButton, Progress } from "./components.js";
import { refreshModels } from "./connection.js";
import { count, ROOT, size } from "./model_units.js";
import { announce } from "./store.js";
import { t } from "./strings.js";

const PULSE = 1000; // milliseconds between two looks while something is under way
const MOVING = ["waiting", "loading", "leaving"];

export function ModelFiles({ found, look }) {
  const { models, switchable } = found, states = models.map((one) => one.state).join(), before = useRef(null);
  const moving = switchable && models.some((one) => MOVING.includes(one.state));
  useEffect(() => {
    if (!moving) return;
    const timer = setTimeout(look, PULSE);
    return () => clearTimeout(timer);
  }, [found, moving]);
  useEffect(() => {
    if (before.current !== null && switchable) {
      for (const one of models) if (before.current.get(one.name) !== one.state) announce(`${one.name}: ${t(`models.state.${one.state}`)}`);
      refreshModels().catch(() => {}); // whom chats can be had with
    }
    before.current = new Map(models.map((one) => [one.name, one.state]));
  }, [states]);
  return html`<section class="card stack" aria-label=${t("models.files")}><h2>${t("models.files")}</h2>
    ${!switchable && html`<p class="field-help">${t("models.restart")} <code>${found.how}</code></p>`}
    ${(found.memory ?? []).map((one) => html`<${Progress} key=${one.name} label=${t("models.budget", { name: one.name, used: size(one.used), budget: size(one.budget) })} value=${one.used} max=${Math.max(1, one.budget)} />`)}
    ${models.length === 0 && html`<p class="faint">${t("models.none")}</p>`}
    <ul class="files">${models.map((one) => html`<${ModelFile} key=${one.name} one=${one} found=${found} look=${look} />`)}</ul></section>`;
}

function ModelFile({ one, found, look }) {
  const [fault, setFault] = useState(""), [busy, setBusy] = useState(false);
  const ask = (what, more = {}) => async () => {
    setBusy(true);
    setFault("");
    try {
      await post(`${ROOT}/${what}`, { model: one.name, ...more });
    } catch (error) {
      if (["does_not_fit", "pinned"].includes(error.code)) setFault(error.message);
      else failed(error);
    }
    await look();
    setBusy(false);
  };
  // a scripted model has no file that could tell
  const facts = one.types ? [one.architecture, t("models.parameters", { n: count(one.parameters) }), one.types.slice(0, 3).join(", "), size(one.bytes), t("models.trained", { n: one.context_length })] : [];
  const taken = one.resident ? t("models.takes", { size: size(one.resident) }) : one.planned && found.switchable ? t("models.wouldTake", { size: size(one.planned) }) : "";
  const said = fault || one.error, there = one.state === "loaded";
  return html`<li><span class="file-name"><b><bdi>${one.name}</bdi></b>
      ${one.fault ? html`<span class="field-error">${one.fault}</span>` : html`<span class="faint">${[...facts, taken].filter(Boolean).join(" · ")}</span>`}
      ${found.switchable && one.state === "loading" && html`<${Progress} label=${t("models.state.loading")} value=${one.progress} />`}
      ${found.switchable && (one.active > 0 || one.queued > 0) && html`<span class="faint">${t("models.replies", { active: one.active, waiting: one.queued })}</span>`}
      ${said && html`<span class="field-error" role="alert">${said}</span>`}</span>
    ${!one.fault && (found.switchable ? html`<span class="row model-actions">${one.state !== "disk" && one.state !== "loading" && html`<span class="chip">${t(`models.state.${one.state}`)}</span>`}
        ${there && html`<button type="button" class="chip" aria-pressed=${one.pinned ? "true" : "false"} title=${t("models.pinHelp")} disabled=${busy} onClick=${ask("pin", { pinned: !one.pinned })}>${t("models.pin")}</button>`}
        ${one.state === "disk" && html`<${Button} label=${t("models.load")} aria-label=${t("models.loadThis", { name: one.name })} disabled=${busy} onClick=${ask("load")} />`}
        ${["loaded", "waiting"].includes(one.state) && html`<${Button} kind="quiet" label=${t("models.unload")} aria-label=${t("models.unloadThis", { name: one.name })} disabled=${busy || one.pinned} onClick=${ask("unload")} />`}</span>`
      : one.loaded ? html`<span class="chip">${t("models.isLoaded")}</span>`
      : html`<${CopyButton} text=${() => found.how.replace("FILE", /[^\w./-]/.test(one.name) ? `'${one.name}'` : one.name)} label=${t("models.copyCommand", { name: one.name })} />`)}</li>`;
}
