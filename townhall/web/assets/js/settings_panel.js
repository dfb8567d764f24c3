// The drawer with the settings of a chat: who answers, how words are drawn, what the model is told beside the talk.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { configure } from "./chat_settings.js";
import { asked, Button, Fold, IconButton, Select, TextField, useWriting } from "./components.js";
import { idOf, modelOf, nameOf, otherModels, partsOf, refreshModels, servedModel, speakers } from "./connection.js";
import { useShortcut } from "./keys.js";
import { deletePreset, presetName, presetOf, presets, savePreset, toPreset } from "./presets.js";
import { SamplerControls } from "./sampler_controls.js";
import { store, useStore } from "./store.js";
import { known, t } from "./strings.js";

/** Sections that other parts of the page add, each a component with {settings, change}. */
export const SETTINGS_SECTIONS = [];

/** A text that is sent when its writer leaves it, or pauses. */
function LateText({ value, onChange, ...rest }) {
  const { write, ...field } = useWriting(value, onChange, 700);
  return html`<${TextField} ...${rest} onInput=${write} ...${field} />`;
}

const number = (text) => (text.trim() === "" || !Number.isSafeInteger(Number(text)) ? null : Number(text));

/** Who answers, and through which model where the server has several. */
function Voice({ chat, model, models }) {
  const others = otherModels(models), { who, through } = partsOf(models, model ?? ""), [first] = speakers(models).filter((one) => one.townhall?.bare);
  useEffect(() => { if (others.length) refreshModels().catch(() => {}); }, []); // which of them are loaded changes without the page
  const choose = (some) => { const id = idOf(models, { who, through, ...some }); configure(chat ? { model: id } : { model: id, ...(some.who && { greeting: 0 }) }); };
  const state = (one) => (one.townhall.state === "loaded" ? nameOf(one) : `${nameOf(one)} (${t(`models.state.${one.townhall.state}`)})`);
  return html`<${Select} label=${t("settings.who")} value=${who} options=${[...(chat && !chat.head.model ? [["", chat.head.persona]] : []), ...speakers(models).map((one) => [one.id, others.length && one === first ? t("settings.noPersona") : nameOf(one)])]} onChange=${(id) => choose({ who: id })} />
    ${others.length > 0 && first && html`<${Select} label=${t("settings.model")} value=${through} options=${[["", nameOf(first)], ...others.map((one) => [one.id, state(one)])]} onChange=${(id) => choose({ through: id })} />`}`;
}

export function SettingsPanel() {
  const chat = useStore((state) => state.chat), fresh = useStore((state) => state.fresh), controls = useStore((state) => state.controls);
  const models = useStore((state) => state.models), [, again] = useState(0), panel = useRef();
  const settings = chat?.settings ?? fresh.settings, system = (chat ?? fresh).system ?? "", note = (chat ?? fresh).note;
  const model = chat ? chat.head.model : modelOf(store.get(), fresh.model)?.id, key = presetOf(settings.sampler);
  const change = (some) => configure({ settings: some });
  const close = () => { store.set({ panel: "" }); };
  useShortcut("close", () => { close(); });
  useLayoutEffect(() => { panel.current.querySelector("select, input")?.focus(); }, []); // before the next key comes
  const noteChange = (some) => {
    const next = { text: "", depth: 4, role: "system", ...note, ...some };
    configure({ note: next.text.trim() ? next : null });
  };
  const keep = async () => {
    const name = (await asked(t("settings.presetSave"), t("settings.presetName")))?.trim();
    if (name) { savePreset(name, settings.sampler ?? {}); again((n) => n + 1); }
  };
  return html`<aside class="panel" aria-label=${t("settings.open")} ref=${panel}>
    <header><h2>${t("settings.title")}</h2><${IconButton} icon="close" label=${t("close")} onClick=${close} /></header>
    <div class="panel-body">
      <${Voice} chat=${chat} model=${model} models=${models} />
      <div class="preset-row"><${Select} label=${t("settings.preset")} value=${key} options=${[["", t("settings.presetNone")], ...(key === "?" ? [["?", t("settings.presetOwn")]] : []), ...Object.keys(presets()).map((one) => [one, presetName(one)])]}
          onChange=${(chosen) => chosen !== "?" && change({ sampler: toPreset(settings.sampler, chosen) })} />
        ${key === "?" && html`<${IconButton} icon="plus" label=${t("settings.presetSave")} onClick=${keep} />`}
        ${key.startsWith("own:") && html`<${IconButton} icon="trash" label=${t("settings.presetDelete")} onClick=${() => { deletePreset(key.slice(4)); again((n) => n + 1); }} />`}</div>
      <${Fold} label=${t("settings.sampling")} open=${true}><${SamplerControls} sampler=${settings.sampler} onChange=${(some) => change({ sampler: some })} />
        <${LateText} label=${t("settings.seed")} help=${t("settings.seedHelp")} value=${settings.seed === undefined || settings.seed === null ? "" : String(settings.seed)} inputmode="numeric" maxlength="18" placeholder=${controls?.seed ?? ""} onChange=${(text) => change({ seed: number(text) })} />
        <${LateText} label=${t("settings.maxTokens")} help=${t("settings.maxTokensHelp")} value=${settings.max_tokens ? String(settings.max_tokens) : ""} inputmode="numeric" maxlength="7" placeholder=${String(controls?.max_tokens ?? "")} onChange=${(text) => change({ max_tokens: number(text) > 0 ? number(text) : null })} />
        <${Select} label=${t("settings.context")} value=${settings.context ?? controls?.context ?? ""} options=${(controls?.strategies ?? []).map((one) => [one.name, `${one.name}: ${known(`strategy.${one.name}`, one.label)}`])} onChange=${(chosen) => change({ context: chosen === controls.context ? null : chosen })} />
        <${Select} label=${t("settings.think")} value=${settings.think === undefined ? "" : String(settings.think)} options=${[["", t("settings.thinkDefault")], ["true", t("on")], ["false", t("off")]]} onChange=${(chosen) => change({ think: chosen === "" ? null : chosen === "true" })} />
        <${LateText} label=${t("settings.stop")} help=${t("settings.stopHelp")} area rows=${2} value=${(settings.stop ?? []).join("\n")} onChange=${(text) => { const lines = text.split("\n").filter(Boolean); change({ stop: lines.length ? lines : null }); }} /><//>
      <${Fold} label=${t("settings.texts")} open=${Boolean(system || note)}>
        <${LateText} label=${t("settings.system")} help=${t("settings.systemHelp")} area rows=${4} value=${system} placeholder=${servedModel({ models }, model)?.townhall?.description ?? ""} onChange=${(text) => configure({ system: text })} />
        <${LateText} label=${t("settings.note")} help=${t("settings.noteHelp")} area rows=${3} value=${note?.text ?? ""} onChange=${(text) => noteChange({ text })} />
        ${note && html`<div class="two"><${LateText} label=${t("settings.noteDepth")} value=${String(note.depth ?? 4)} inputmode="numeric" onChange=${(text) => noteChange({ depth: number(text) ?? 4 })} />
          <${Select} label=${t("settings.noteRole")} value=${note.role ?? "system"} options=${["system", "user", "assistant"].map((role) => [role, t(`role.${role}`)])} onChange=${(role) => noteChange({ role })} /></div>`}<//>
      ${SETTINGS_SECTIONS.map((Section, at) => html`<${Section} key=${at} settings=${settings} change=${change} />`)}
      <${Button} label=${t("settings.reset")} icon="undo" disabled=${!Object.keys(settings).some((name) => name !== "sampler" || Object.keys(settings.sampler).length)}
        onClick=${() => change({ ...Object.fromEntries(Object.keys(settings).map((name) => [name, null])), ...(settings.sampler && { sampler: toPreset(settings.sampler, "") }) })} />
    </div></aside>`;
}
