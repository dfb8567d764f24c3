// Another reply with settings for this once.
import { html, useState } from "./html.js";
import { retry } from "./chat_state.js";
import { Button, Dialog, openDialog, Select, TextField } from "./components.js";
import { presetName, presetOf, presets, toPreset } from "./presets.js";
import { SamplerControls } from "./sampler_controls.js";
import { store } from "./store.js";
import { t } from "./strings.js";

const filled = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null && value !== ""));

export async function retryDialog(message) {
  const once = await openDialog((close) => html`<${RetryDialog} close=${close} />`);
  if (once) retry(message, once);
}

function RetryDialog({ close }) {
  const [sampler, setSampler] = useState(store.get().chat?.settings.sampler ?? {}), [prefill, setPrefill] = useState(""), [seed, setSeed] = useState("");
  const key = presetOf(filled(sampler));
  const go = (event) => {
    event.preventDefault();
    const settings = filled(sampler);
    close({ ...(Object.keys(settings).length && { sampler: settings }), ...(prefill && { prefill }), ...(/^\d{1,15}$/.test(seed) && { seed: Number(seed) }) });
  };
  return html`<${Dialog} title=${t("retry.title")} onClose=${() => close(null)}><form onSubmit=${go}><p class="faint">${t("retry.help")}</p>
    <${Select} label=${t("settings.preset")} value=${key} options=${[["", t("settings.presetNone")], ...(key === "?" ? [["?", t("settings.presetOwn")]] : []), ...Object.keys(presets()).map((one) => [one, presetName(one)])]}
      onChange=${(chosen) => chosen !== "?" && setSampler(toPreset(sampler, chosen))} />
    <${SamplerControls} sampler=${filled(sampler)} onChange=${(some) => setSampler((now) => ({ ...now, ...some }))} />
    <${TextField} label=${t("composer.prefillLabel")} value=${prefill} onInput=${setPrefill} />
    <${TextField} label=${t("settings.seed")} help=${t("settings.seedHelp")} value=${seed} onInput=${setSeed} inputmode="numeric" />
    <footer><${Button} label=${t("cancel")} onClick=${() => close(null)} /><button class="button primary" type="submit"><span>${t("message.retry")}</span></button></footer></form><//>`;
}
