// What stands around every view: the side bar, notes at the bottom, dialogs, and what screen readers are told.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { useKey } from "./api.js";
import { ChatList } from "./chat_list.js";
import { Button, Dialog, DialogHost, Empty, IconButton, isWide, Spinner, TextField } from "./components.js";
import { Icon } from "./icons.js";
import { helpDialog } from "./keys.js";
import { prefer, preference } from "./preferences.js";
import { href } from "./router.js";
import { store, useStore } from "./store.js";
import { t } from "./strings.js";
import { VIEWS } from "./views.js";

const mark = new URL("../favicon.svg", import.meta.url).href;

store.set({ sideFolded: preference("sideFolded") === true }); // on a wide screen

function Side() {
  const open = useStore((state) => state.sideOpen), folded = useStore((state) => state.sideFolded), view = useStore((state) => state.route.view);
  const side = useRef(), before = useRef(folded);
  useLayoutEffect(() => {
    if (before.current === folded) return;
    before.current = folded;
    prefer("sideFolded", folded);
    document.querySelector(folded ? ".side-toggle" : ".side-close")?.focus(); // where the other button was
  }, [folded]);
  useLayoutEffect(() => { if (open) side.current.querySelector("a, button")?.focus(); }, [open]);
  return html`<aside class=${`side ${open ? "open" : ""}`} aria-label=${t("side.label")} ref=${side}>
      <div class="side-head"><a class="brand" href=${href("chat")}><img src=${mark} alt="" width="26" height="26" />Townhall</a>
        <${IconButton} class="side-close" icon="close" label=${t("side.close")} onClick=${() => store.set(isWide() ? { sideFolded: true } : { sideOpen: false })} /></div>
      <${ChatList} />
      <nav class="side-nav" aria-label=${t("side.views")}>${Object.entries(VIEWS).filter(([, one]) => one.nav).map(([name, one]) => html`
        <a key=${name} href=${href(name)} aria-current=${view === name ? "page" : undefined}><${Icon} name=${one.icon} />${t(one.title)}</a>`)}
        <button type="button" onClick=${helpDialog}><${Icon} name="help" />${t("help.title")}</button></nav>
    </aside>
    ${open && html`<div class="side-shade" onClick=${() => store.set({ sideOpen: false })}></div>`}`;
}

/** A view of VIEWS, fetched when it is opened first. */
function View() {
  const route = useStore((state) => state.route);
  const known = VIEWS[route.view], [loaded, setLoaded] = useState({});
  const view = known?.component ?? loaded[route.view];
  useEffect(() => {
    if (!known || known.component || loaded[route.view]) return;
    known.load().then(
      (module) => setLoaded((before) => ({ ...before, [route.view]: module.default })),
      () => setLoaded((before) => ({ ...before, [route.view]: () => html`<${Empty} icon="warning" title=${t("view.failed")}><${Button} label=${t("reload")} onClick=${() => location.reload()} /><//>` })),
    );
  }, [route.view]);
  useLayoutEffect(() => { document.title = known?.title ? `${t(known.title)} · Townhall` : document.title; }, [known]);
  if (!known) return html`<${Empty} icon="help" title=${t("view.unknown")}><a href=${href("chat")}>${t("chat.new")}</a><//>`;
  return view ? html`<${view} route=${route} />` : html`<div class="view"><${Spinner} label=${t("loading")} /></div>`;
}

function KeyDialog() {
  const [key, setKey] = useState("");
  return html`<${Dialog} title=${t("key.title")}><form onSubmit=${(event) => { event.preventDefault(); if (key.trim()) useKey(key.trim()); }}>
    <${TextField} label=${t("key.label")} help=${t("key.help")} value=${key} onInput=${setKey} type="password" autocomplete="current-password" autofocus />
    <footer><button class="button primary" type="submit"><span>${t("key.use")}</span></button></footer></form><//>`;
}

function Notices() {
  const notices = useStore((state) => state.notices);
  return html`<div class="notices" role="status">${notices.map((one) => html`<p key=${one.id} class=${one.kind}>${one.text}</p>`)}</div>`;
}

export function Shell() {
  const dialog = useStore((state) => state.dialog), keyNeeded = useStore((state) => state.keyNeeded), said = useStore((state) => state.said);
  const folded = useStore((state) => state.sideFolded);
  useStore((state) => state.language); // all texts anew
  return html`<a class="skip" href="#message" onClick=${(event) => { event.preventDefault(); document.getElementById("message")?.focus(); }}>${t("skip")}</a>
    <div class=${`shell ${folded ? "folded" : ""}`}><${Side} /><main class="main"><${View} /></main></div>
    <p class="unseen" role="status" id="said">${said}</p>
    <${Notices} /><${DialogHost} dialog=${dialog} />${keyNeeded && html`<${KeyDialog} />`}`;
}
