// Named sets of sampler settings: four that come with the page, and those that a person saved in this browser.
import { t } from "./strings.js";

const STORED = "townhall-presets";
export const BUILT_IN = {
  precise: { temperature: 0.2, top_p: 0.9, top_k: 40, min_p: 0.05 },
  balanced: { temperature: 0.7, top_p: 0.95, top_k: 40, min_p: 0.05 },
  creative: { temperature: 1.1, top_p: 1, top_k: 0, min_p: 0.05 },
  greedy: { temperature: 0 },
};

export function savedPresets() {
  try { return JSON.parse(localStorage.getItem(STORED) ?? "{}"); } catch { return {}; }
}
const store = (presets) => { try { localStorage.setItem(STORED, JSON.stringify(presets)); } catch { /* for this visit only */ } };
export const savePreset = (name, sampler) => store({ ...savedPresets(), [name]: sampler });
export const deletePreset = (name) => { const { [name]: _, ...rest } = savedPresets(); store(rest); };

/** {key: sampler}: own presets have keys that begin with "own:". */
export const presets = () => ({ ...BUILT_IN, ...Object.fromEntries(Object.entries(savedPresets()).map(([name, sampler]) => [`own:${name}`, sampler])) });
export const presetName = (key) => (key.startsWith("own:") ? key.slice(4) : t(`preset.${key}`));

/** The key of the preset that these settings are; "" for none set, "?" for others. */
export function presetOf(sampler = {}) {
  const names = Object.keys(sampler);
  if (!names.length) return "";
  const same = ([, preset]) => Object.keys(preset).length === names.length && names.every((name) => preset[name] === sampler[name]);
  return Object.entries(presets()).find(same)?.[0] ?? "?";
}

/** Settings that make `sampler` into that preset: what it does not name goes back to the server's own. */
export const toPreset = (sampler = {}, key) => ({ ...Object.fromEntries(Object.keys(sampler).map((name) => [name, null])), ...(presets()[key] ?? {}) });
