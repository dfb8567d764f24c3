// What this browser remembers of its user's liking: theme, language, how to send.
import { html, useState } from "./html.js";
import { Select, ViewHead } from "./components.js";
import { chooseTheme, prefer, preference, theme } from "./preferences.js";
import { useStore } from "./store.js";
import { chooseLanguage, LANGUAGES, t } from "./strings.js";

export default function PreferencesView() {
  const language = useStore((state) => state.language), [, again] = useState(0);
  const then = (change) => { change(); again((n) => n + 1); };
  return html`<div class="view"><${ViewHead} title=${t("preferences.title")} about=${t("preferences.about")} /><div class="card stack narrow">
    <${Select} label=${t("preferences.theme")} value=${theme()} options=${[["system", t("preferences.themeSystem")], ["light", t("preferences.themeLight")], ["dark", t("preferences.themeDark")]]} onChange=${(chosen) => then(() => chooseTheme(chosen))} />
    <${Select} label=${t("preferences.language")} value=${language} options=${Object.entries(LANGUAGES)} onChange=${chooseLanguage} />
    <${Select} label=${t("preferences.sendWith")} value=${preference("sendWith")} options=${[["enter", t("preferences.sendEnter")], ["ctrl", t("preferences.sendCtrl")]]} onChange=${(chosen) => then(() => prefer("sendWith", chosen))} /></div></div>`;
}
