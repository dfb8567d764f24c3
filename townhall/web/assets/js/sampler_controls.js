// A control for each sampler setting that the server declares; an empty one leaves the server's own value.
import { html, useState } from "./html.js";
import { Fold, Slider, TextField, useWriting } from "./components.js";
import { useStore } from "./store.js";
import { known, t } from "./strings.js";

const labelOf = (control) => known(`sampler.${control.name}`, control.label);
const infoOf = (control) => known(`sampler.${control.name}.info`, control.info ?? "");

function Texts({ control, value, onChange }) {
  const [error, setError] = useState("");
  const take = (text) => {
    if (!text.trim()) { setError(""); return onChange(null); }
    try {
      const found = JSON.parse(text);
      if (!Array.isArray(found) || found.some((one) => typeof one !== "string" || !one || one.length > 100)) throw new Error();
      setError("");
      onChange(found);
    } catch { setError(t("settings.breakersFault", { example: '["\\n", ":"]' })); }
  };
  const { write, ...field } = useWriting(value ? JSON.stringify(value) : "", take);
  return html`<${TextField} label=${labelOf(control)} help=${infoOf(control)} error=${error} placeholder=${JSON.stringify(control.default)} onInput=${write} ...${field} />`;
}

const Control = ({ control, value, onChange }) => (control.kind === "texts"
  ? html`<${Texts} control=${control} value=${value} onChange=${onChange} />`
  : html`<${Slider} label=${labelOf(control)} help=${infoOf(control)} value=${value} fallback=${control.default} min=${control.min} max=${control.max} step=${control.step} onChange=${onChange} />`);

export function SamplerControls({ sampler = {}, onChange, rare = true }) {
  const controls = useStore((state) => state.controls)?.controls ?? [];
  const row = (control) => html`<${Control} key=${control.name} control=${control} value=${sampler[control.name]} onChange=${(value) => onChange({ [control.name]: value })} />`;
  return html`${controls.filter((control) => !control.rare).map(row)}
    ${rare && html`<${Fold} label=${t("settings.rare")}>${controls.filter((control) => control.rare).map(row)}<//>`}`;
}
