// The gallery of characters: search, chat, make, import by dropping a card, export, duplicate, delete. An id in the address opens the editor.
import { html, useCallback, useEffect, useRef, useState } from "./html.js";
import { get, post, upload } from "./api.js";
import { changed, duplicate, exportAs, failed, remove, ROOT, talkTo } from "./character_actions.js";
import { CharacterEditor } from "./character_editor.js";
import { asked, Button, Empty, Face, FileDrop, Menu, Spinner, ViewHead } from "./components.js";
import { go, href } from "./router.js";
import { notify } from "./store.js";
import { t } from "./strings.js";

export default function CharactersView({ route }) {
  return route.id ? html`<${CharacterEditor} key=${route.id} id=${route.id} />` : html`<${Gallery} route=${route} />`;
}

function Gallery({ route }) {
  const [found, setFound] = useState(null), [words, setWords] = useState(route.query.q ?? ""), [busy, setBusy] = useState(false), newest = useRef(0);
  const look = useCallback(async () => {
    const mine = ++newest.current;
    try {
      const answer = await get(`${ROOT}?${new URLSearchParams({ search: words })}`);
      if (mine === newest.current) setFound(answer.characters);
    } catch (error) { failed(error); }
  }, [words]);
  useEffect(() => {
    go("characters", "", { query: words ? { q: words } : {}, replace: true });
    const timer = setTimeout(look, words ? 150 : 0);
    return () => clearTimeout(timer);
  }, [look]);
  const make = async () => {
    const name = (await asked(t("characters.new"), t("characters.name"), "", t("characters.make")))?.trim();
    if (!name) return;
    try {
      const made = await post(ROOT, { name });
      await changed(made);
      go("characters", made.id);
    } catch (error) { failed(error); }
  };
  const take = async (files) => {
    setBusy(true);
    for (const file of files) {
      try {
        await takeIn(file);
      } catch (error) { failed(error); }
    }
    setBusy(false);
    await look();
  };
  return html`<div class="view gallery" onDragOver=${(event) => event.preventDefault()} onDrop=${(event) => { if (event.defaultPrevented) return; event.preventDefault(); take([...event.dataTransfer.files]); }}>
    <${ViewHead} title=${t("characters.title")} about=${t("characters.about")}><${Button} kind="primary" icon="plus" label=${t("characters.new")} onClick=${make} /><//>
    <div class="field"><label for="character-search" class="unseen">${t("characters.search")}</label>
      <input id="character-search" type="search" value=${words} placeholder=${t("characters.search")} onInput=${(event) => setWords(event.currentTarget.value)} /></div>
    <p class="faint" role="status">${busy ? t("characters.importing") : found && t("characters.found", { n: found.length })}</p>
    ${!found && html`<${Spinner} label=${t("loading")} />`}
    ${found?.length === 0 && html`<${Empty} icon="people" title=${t("characters.none")} />`}
    <ul class="grid cards">${(found ?? []).map((one) => html`<${CharacterCard} key=${one.id} one=${one} gone=${look} />`)}</ul>
    <${FileDrop} label=${t("characters.drop")} accept=".png,.json,.charx,image/png,application/json" multiple onFiles=${take} />
  </div>`;
}

/** One card; where a character of that name is there already, the person chooses what is to happen. */
async function takeIn(file) {
  let made;
  try {
    made = await upload(`${ROOT}/import`, file);
  } catch (error) {
    if (error.code !== "character_exists") throw error;
    const name = await asked(t("characters.exists", { name: file.name }), t("characters.otherName"), "", t("characters.import"));
    if (name === null) return;
    made = await upload(`${ROOT}/import?${new URLSearchParams(name.trim() ? { name: name.trim() } : { replace: "true" })}`, file);
  }
  await changed(made);
  notify(t("characters.imported", { name: made.fields.name || made.id }));
}

function CharacterCard({ one, gone }) {
  const own = one.kind === "character", able = !one.fault;
  const items = [
    able && one.served && { label: t("characters.chat"), icon: "chat", onClick: () => talkTo(one.id) },
    able && { label: own ? t("characters.edit") : t("characters.look"), icon: "edit", onClick: () => go("characters", one.id) },
    able && { label: t("characters.duplicate"), icon: "copy", onClick: () => duplicate(one.id) },
    able && { label: t("characters.exportPng"), icon: "export", onClick: () => exportAs(one.id, "png") },
    able && { label: t("characters.exportJson"), icon: "export", onClick: () => exportAs(one.id, "json") },
    own && { label: t("delete"), icon: "trash", danger: true, onClick: async () => { if (await remove(one.id, one.name)) await gone(); } },
  ];
  return html`<li class="card character-card">
    <${Face} id=${one.id} size=${56} />
    <div class="character-about"><h2>${able ? html`<a href=${href("characters", one.id)}><bdi>${one.name}</bdi></a>` : html`<bdi>${one.name}</bdi>`}</h2>
      ${one.fault ? html`<p class="field-error">${one.fault}</p>` : html`<p class="clip" dir="auto">${one.description}</p>`}
      <p class="chips">${!own && html`<span class="chip">${t("characters.builtIn")}</span>`}${able && !one.served && html`<span class="chip">${t("characters.idle")}</span>`}
        ${one.lorebook_entries > 0 && html`<span class="chip">${t("characters.lore", { n: one.lorebook_entries })}</span>`}${one.tags.slice(0, 4).map((tag) => html`<span class="chip" key=${tag}><bdi>${tag}</bdi></span>`)}</p></div>
    <${Menu} label=${t("characters.menu", { name: one.name })} items=${items} />
    ${able && one.served && html`<${Button} class="talk-button" icon="chat" label=${t("characters.chat")} aria-label=${t("characters.chatWith", { name: one.name })} onClick=${() => talkTo(one.id)} />`}
  </li>`;
}
