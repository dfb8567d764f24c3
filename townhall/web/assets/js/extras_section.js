// A chat's own libraries and adapters, in its settings: without a choice of its own it has the character's.
import { html, useEffect, useState } from "./html.js";
import { get } from "./api.js";
import { Fold, Select, Slider } from "./components.js";
import { SETTINGS_SECTIONS } from "./settings_panel.js";
import { t } from "./strings.js";

function ExtrasSection({ settings, change }) {
  const [there, setThere] = useState(null);
  useEffect(() => {
    Promise.all([get("townhall/libraries"), get("townhall/models")]).then(([found, models]) => setThere({ libraries: found.libraries.filter((one) => !one.fault), adapters: models.adapters }), () => {});
  }, []);
  if (!there) return null;
  const { libraries, adapters } = settings;
  return html`${there.libraries.length > 0 && html`<${Fold} label=${t("libraries.title")} open=${Boolean(libraries)}>
      <${Own} has=${libraries} label=${t("extras.libraries")} change=${(own) => change({ libraries: own ? [] : null })} />
      ${libraries && html`<fieldset class="choices"><legend>${t("libraries.title")}</legend>${there.libraries.map(({ name }) => html`<label key=${name}><input type="checkbox" checked=${libraries.includes(name)}
        onChange=${(event) => change({ libraries: event.currentTarget.checked ? [...libraries, name] : libraries.filter((one) => one !== name) })} />${name}</label>`)}</fieldset>`}<//>`}
    ${there.adapters.length > 0 && html`<${Fold} label=${t("extras.adapters")} open=${Boolean(adapters)}>
      <${Own} has=${adapters} label=${t("extras.adapters")} change=${(own) => change({ adapters: own ? [] : null })} />
      ${adapters && there.adapters.map(({ name, scale }) => html`<${Slider} key=${name} label=${name} help=${t("extras.scale")} value=${adapters.find((one) => one.name === name)?.scale ?? 0} fallback=${scale} min=${0} max=${2} step=${0.05}
        onChange=${(value) => change({ adapters: [...adapters.filter((one) => one.name !== name), ...(value ? [{ name, scale: value }] : [])] })} />`)}<//>`}`;
}

const Own = ({ has, label, change }) => html`<${Select} label=${label} value=${has ? "own" : ""} options=${[["", t("extras.asCharacter")], ["own", t("extras.own")]]} onChange=${(chosen) => change(chosen === "own")} />`;

SETTINGS_SECTIONS.push(ExtrasSection);
