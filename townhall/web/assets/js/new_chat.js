// A chat that has not begun: whom to talk to, how that one greets, and three things to try.
import { html, useId } from "./html.js";
import { configure } from "./chat_settings.js";
import { freshChat } from "./chat_state.js";
import { Face, IconButton } from "./components.js";
import { addWords } from "./composer.js";
import { modelOf, nameOf, partsOf } from "./connection.js";
import { Markdown } from "./markdown.js";
import { store, useStore } from "./store.js";
import { t } from "./strings.js";

const tagline = (model) => {
  const about = (model.townhall?.description ?? "").split(/\s+/).join(" ") || t("new.bare");
  const cut = about.startsWith(`${nameOf(model)} is `) ? about.slice(nameOf(model).length + 4) : about;
  return cut.charAt(0).toUpperCase() + cut.slice(1);
};

export function NewChat({ pending }) {
  const models = useStore((state) => state.models), fresh = useStore((state) => state.fresh), chosen = useStore((state) => modelOf(state, state.fresh.model));
  const group = useId(), who = chosen && partsOf(models, chosen.id).through !== chosen.id ? partsOf(models, chosen.id).who : "";
  if (!chosen) return html`<div class="talk-frame"></div>`;
  const greetings = chosen.townhall?.greetings ?? (chosen.townhall?.greeting ? [chosen.townhall.greeting] : []), at = Math.min(fresh.greeting ?? 0, Math.max(0, greetings.length - 1));
  const pick = (id) => { store.set({ fresh: { ...freshChat(id), settings: fresh.settings }, problem: "" }); };
  return html`<div class="talk-frame"><div class="talk new-chat" role="log" aria-label=${t("talk.label")} aria-live="off" aria-busy=${pending ? "true" : "false"}>
    <fieldset class="characters" role="radiogroup" aria-label=${t("new.characters")}><legend>${t("new.title")}</legend>
      ${models.map((model) => html`<label key=${model.id} title=${tagline(model)}><input type="radio" name=${group} value=${model.id} checked=${model.id === chosen.id || model.id === who} onChange=${() => pick(model.id)} aria-describedby=${`${group}-${model.id}`} />
        <${Face} id=${model.id} size=${40} /><span class="name"><bdi>${nameOf(model)}</bdi></span><span class="tag" id=${`${group}-${model.id}`} aria-hidden="true">${tagline(model)}</span></label>`)}</fieldset>
    ${greetings.length > 0 && html`<article class="message theirs" aria-label=${nameOf(chosen)}><${Face} id=${chosen.id} size=${34} /><div class="message-body"><p class="message-name"><bdi>${nameOf(chosen)}</bdi></p>
      <div class="bubble"><${Markdown} text=${greetings[at]} /></div>
      ${greetings.length > 1 && html`<div class="message-tools"><span class="swipes"><${IconButton} icon="left" size=${15} label=${t("swipe.previous")} disabled=${!at} onClick=${() => configure({ greeting: at - 1 })} />
        <span class="swipe-count" aria-label=${t("swipe.count", { at: at + 1, of: greetings.length })}>${at + 1}/${greetings.length}</span><${IconButton} icon="right" size=${15} label=${t("swipe.next")} disabled=${at + 1 >= greetings.length} onClick=${() => configure({ greeting: at + 1 })} /></span></div>`}</div></article>`}
    ${!pending && html`<section class="tries" aria-label=${t("new.try")}><h2>${t("new.try")}</h2><div class="row">${["Ask", "Swipe", "Tokens"].map((one) => html`<button type="button" key=${one} class="try" onClick=${() => addWords(t(`new.try${one}Text`), true)}>
      <b>${t(`new.try${one}`)}</b><span>${t(`new.try${one}Text`)}</span></button>`)}</div></section>`}
    ${pending && html`<article class="message mine pending"><div class="message-body"><div class="bubble"><p class="plain" dir="auto">${pending.text}</p><p class="note">${t("talk.sending")}</p></div></div></article>`}
  </div></div>`;
}
