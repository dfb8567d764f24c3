// One character: all fields of its card, portrait, greetings, lorebook. A shipped persona is shown and can be duplicated.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { get, patch, replace } from "./api.js";
import { changed, duplicate, exportAs, failed, pathOf, remove, talkTo } from "./character_actions.js";
import { Button, confirmed, Face, Fold, IconButton, Menu, Spinner, TextField, ViewHead } from "./components.js";
import { LorebookEditor } from "./lorebook_editor.js";
import { go } from "./router.js";
import { notify } from "./store.js";
import { t } from "./strings.js";

// field → rows; 0: one line
const FIELDS = { name: 0, nickname: 0, description: 7, personality: 2, scenario: 3, first_mes: 4 };
const MORE = { mes_example: 6, system_prompt: 4, post_history_instructions: 3 };
const ABOUT = { creator_notes: 3, creator: 0, character_version: 0 };

const tagsOf = (text) => text.split(",").map((tag) => tag.trim()).filter(Boolean);
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);

export function CharacterEditor({ id }) {
  const [character, setCharacter] = useState(null), [fields, setFields] = useState(null), [tags, setTags] = useState(""), [problem, setProblem] = useState(""), [saving, setSaving] = useState(false);
  const form = useRef(), picture = useRef();
  const take = (found) => { setCharacter(found); setFields(found.fields); setTags(found.fields.tags.join(", ")); };
  useEffect(() => {
    const leave = new AbortController();
    get(pathOf(id), { signal: leave.signal }).then(take, (error) => { if (error.name !== "AbortError") { setProblem(error.message); failed(error); } });
    return () => leave.abort();
  }, [id]);
  const now = fields && { ...fields, tags: tagsOf(tags) };
  const dirty = Boolean(now) && Object.keys(now).some((name) => !same(now[name], character.fields[name]));
  useLayoutEffect(() => {
    if (!dirty) return;
    const warn = (event) => event.preventDefault();
    addEventListener("beforeunload", warn);
    return () => removeEventListener("beforeunload", warn);
  }, [dirty]);
  if (!fields) return html`<div class="view"><${ViewHead} title=${t("characters.title")} />${problem ? html`<p class="problem" role="alert">${problem}</p>` : html`<${Spinner} label=${t("loading")} />`}</div>`;

  const own = character.editable, set = (name) => (value) => setFields((before) => ({ ...before, [name]: value }));
  const keep = async () => {
    setSaving(true);
    setProblem("");
    try {
      const some = Object.fromEntries(Object.entries(now).filter(([name, value]) => !same(value, character.fields[name])));
      const saved = await patch(pathOf(id), some);
      take(saved);
      await changed(saved);
      notify(t("characters.saved", { name: saved.fields.name || id }));
    } catch (error) { setProblem(error.message); } finally { setSaving(false); }
  };
  const back = async () => {
    if (dirty && !(await confirmed(t("characters.unsaved"), t("characters.unsavedText"), t("characters.leave")))) return;
    go("characters");
  };
  const portrait = async (file) => {
    try {
      const saved = await replace(pathOf(id, "/portrait"), file);
      setCharacter((before) => ({ ...before, version: saved.version }));
      await changed(null);
    } catch (error) { failed(error); }
  };
  const text = (name, rows) => html`<${TextField} key=${name} label=${t(`field.${name}`)} help=${t(`field.${name}.help`)} value=${fields[name]} onInput=${set(name)} area=${rows > 0} rows=${rows} readonly=${!own} dir="auto" spellcheck=${rows > 0} />`;
  const keys = (event) => { if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "s") { event.preventDefault(); if (own && dirty && !saving) keep(); } };
  return html`<div class="view character-editor" onKeyDown=${keys}>
    <${ViewHead} title=${character.fields.name || id} about=${own ? t("characters.card", { version: character.version, id }) : t("characters.builtIn")}>
      <${IconButton} icon="left" label=${t("characters.back")} onClick=${back} />
      ${character.served && html`<${Button} icon="chat" label=${t("characters.chat")} onClick=${() => talkTo(id)} />`}
      ${own && html`<${Button} kind="primary" icon="check" label=${saving ? t("characters.saving") : t("save")} disabled=${!dirty || saving} onClick=${keep} />`}
      <${Menu} label=${t("characters.menu", { name: character.fields.name || id })} items=${[
        { label: t("characters.duplicate"), icon: "copy", onClick: () => duplicate(id) },
        { label: t("characters.exportPng"), icon: "export", onClick: () => exportAs(id, "png") },
        { label: t("characters.exportJson"), icon: "export", onClick: () => exportAs(id, "json") },
        own && { label: t("delete"), icon: "trash", danger: true, onClick: async () => { if (await remove(id, character.fields.name || id)) go("characters"); } },
      ]} /><//>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    ${!own && html`<p class="remark">${t("characters.readOnly")} <${Button} icon="copy" label=${t("characters.duplicateToEdit")} onClick=${() => duplicate(id)} /></p>`}
    ${own && !character.served && html`<p class="remark">${t("characters.idleText")}</p>`}
    <div class="stack" ref=${form}>
      <div class="row portrait-row"><${Face} id=${id} size=${96} />
        ${own && html`<div class="row"><input ref=${picture} type="file" class="unseen" accept="image/png,image/jpeg,image/webp,image/gif" aria-label=${t("characters.portraitChoose")} tabindex="-1"
            onChange=${(event) => { const [file] = event.currentTarget.files; event.currentTarget.value = ""; if (file) portrait(file); }} />
          <${Button} icon="import" label=${t("characters.portraitChoose")} onClick=${() => picture.current.click()} />
          <${Button} kind="quiet" icon="trash" label=${t("characters.portraitRemove")} onClick=${() => portrait(new Blob([]))} /></div>`}</div>
      ${Object.entries(FIELDS).map(([name, rows]) => text(name, rows))}
      <${Greetings} greetings=${fields.alternate_greetings} own=${own} onChange=${set("alternate_greetings")} />
      <${TextField} label=${t("field.tags")} help=${t("field.tags.help")} value=${tags} onInput=${setTags} readonly=${!own} />
      <${Fold} label=${t("characters.more")}>${Object.entries(MORE).map(([name, rows]) => text(name, rows))}<//>
      <${Fold} label=${t("characters.aboutCard")}>${Object.entries(ABOUT).map(([name, rows]) => text(name, rows))}<//>
      <${Fold} label=${t("lore.title", { n: character.lorebook_entries })} open=${character.lorebook_entries > 0}><${LorebookEditor} id=${id} own=${own} /><//>
    </div></div>`;
}

/** Greetings beside the first message; each may be the beginning of a chat. */
function Greetings({ greetings, own, onChange }) {
  const list = useRef();
  const write = (at) => (value) => onChange(greetings.map((one, index) => (index === at ? value : one)));
  const move = (at, to) => { const next = [...greetings]; next.splice(to, 0, ...next.splice(at, 1)); onChange(next); };
  const add = () => { onChange([...greetings, ""]); setTimeout(() => list.current.querySelector(".greeting:last-of-type textarea")?.focus()); };
  return html`<fieldset class="greetings" ref=${list}><legend>${t("field.alternate_greetings")}</legend>
    ${greetings.length === 0 && html`<p class="field-help">${t("field.alternate_greetings.help")}</p>`}
    ${greetings.map((greeting, at) => html`<div class="greeting" key=${at}><${TextField} label=${t("greeting.label", { n: at + 1 })} value=${greeting} onInput=${write(at)} area rows=${3} readonly=${!own} dir="auto" />
      ${own && html`<div class="row"><${IconButton} icon="up" label=${t("greeting.up", { n: at + 1 })} disabled=${at === 0} onClick=${() => move(at, at - 1)} />
        <${IconButton} icon="down" label=${t("greeting.down", { n: at + 1 })} disabled=${at === greetings.length - 1} onClick=${() => move(at, at + 1)} />
        <${IconButton} icon="trash" label=${t("greeting.remove", { n: at + 1 })} onClick=${() => onChange(greetings.filter((_, index) => index !== at))} /></div>`}</div>`)}
    ${own && html`<div><${Button} icon="plus" label=${t("greeting.add")} onClick=${add} /></div>`}</fieldset>`;
}
