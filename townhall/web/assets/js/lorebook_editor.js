// A character's lorebook: entries as the card has them, keys that are not shown here included, and a field that tests what a text would fire.
import { html, useEffect, useRef, useState } from "./html.js";
import { get, post, put } from "./api.js";
import { failed, pathOf } from "./character_actions.js";
import { Button, confirmed, IconButton, Select, Spinner, Switch, TextField } from "./components.js";
import { Plain } from "./markdown.js";
import { notify } from "./store.js";
import { t } from "./strings.js";

const SHOWN = 40; // entries at a time
const LOGIC = ["any", "notAll", "notAny", "all"]; // SillyTavern's numbers

const listOf = (book) => (Array.isArray(book?.entries) ? book.entries : Object.values(book?.entries ?? {}));
const keysOf = (entry, ...names) => { const value = names.map((name) => entry[name]).find((one) => one !== undefined && one !== null) ?? []; return Array.isArray(value) ? value.join(", ") : value; };
const number = (text) => (text.trim() === "" || Number.isNaN(Number(text)) ? null : Number(text));
const extra = (entry, some) => {
  const extensions = { ...(entry.extensions ?? {}), ...some };
  for (const [name, value] of Object.entries(some)) if (value === null) delete extensions[name];
  return { ...entry, extensions };
};
const titleOf = (entry) => entry.comment || entry.name || keysOf(entry, "keys", "key") || t("lore.untitled");
const enabledOf = (entry) => entry.enabled ?? !entry.disable;

function placeOf(entry) {
  const where = entry.extensions?.position ?? entry.position;
  if (where === 4) return "depth";
  if (where === "before_char" || where === 0) return "before";
  return where === undefined || where === null || where === "after_char" || where === 1 ? "after" : "other";
}
function placed(entry, where) {
  if (where === "depth") return extra(entry, { position: 4, depth: entry.extensions?.depth ?? 4 });
  return { ...extra(entry, { position: null }), position: `${where}_char` };
}

export function LorebookEditor({ id, own }) {
  const [book, setBook] = useState(undefined), [saved, setSaved] = useState(null), [open, setOpen] = useState(-1), [filter, setFilter] = useState(""), [most, setMost] = useState(SHOWN), [problem, setProblem] = useState("");
  const list = useRef();
  useEffect(() => {
    get(pathOf(id, "/lorebook")).then((found) => { setBook(found.book); setSaved(found.book); }, (error) => { setBook(null); failed(error); });
  }, [id]);
  if (book === undefined) return html`<${Spinner} label=${t("loading")} />`;
  const entries = listOf(book), dirty = JSON.stringify(book) !== JSON.stringify(saved);
  const withEntries = (next) => setBook({ name: "", extensions: {}, ...book, entries: next });
  const change = (at, entry) => withEntries(entries.map((one, index) => (index === at ? entry : one)));
  const add = () => {
    withEntries([...entries, { keys: [], content: "", extensions: {}, enabled: true, insertion_order: 100, use_regex: false }]);
    setFilter(""); setMost(Math.max(most, entries.length + 1)); setOpen(entries.length);
    setTimeout(() => list.current.querySelector(".lore-entry[open] input")?.focus());
  };
  const keep = async () => {
    setProblem("");
    try {
      const found = await put(pathOf(id, "/lorebook"), { book: entries.length || saved ? book : null });
      setBook(found.book); setSaved(found.book);
      notify(t("lore.saved", { n: found.entries }));
    } catch (error) { setProblem(error.message); }
  };
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = entries.map((entry, at) => [entry, at]).filter(([entry]) => { const text = `${titleOf(entry)} ${keysOf(entry, "keys", "key")} ${entry.content ?? ""}`.toLowerCase(); return words.every((word) => text.includes(word)); });
  const drop = async (at) => { if (await confirmed(t("lore.delete", { name: titleOf(entries[at]) }), t("lore.deleteText"), t("delete"))) { setOpen(-1); withEntries(entries.filter((_, index) => index !== at)); } };
  return html`<div class="stack lorebook" ref=${list}>
    <p class="field-help">${t("lore.about")}</p>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    <div class="three">
      <${TextField} label=${t("lore.scanDepth")} value=${book?.scan_depth ?? ""} placeholder="4" inputmode="numeric" readonly=${!own} onInput=${(text) => setBook({ entries: [], ...book, scan_depth: number(text) })} />
      <${TextField} label=${t("lore.budget")} value=${book?.token_budget ?? ""} placeholder=${t("lore.noBudget")} inputmode="numeric" readonly=${!own} onInput=${(text) => setBook({ entries: [], ...book, token_budget: number(text) })} />
      <${Switch} label=${t("lore.recursive")} checked=${Boolean(book?.recursive_scanning)} disabled=${!own} onChange=${(on) => setBook({ entries: [], ...book, recursive_scanning: on })} /></div>
    <${LoreTest} id=${id} book=${book} />
    ${entries.length > 8 && html`<${TextField} label=${t("lore.filter")} type="search" value=${filter} onInput=${(text) => { setFilter(text); setMost(SHOWN); }} />`}
    ${shown.slice(0, most).map(([entry, at]) => html`<details class="lore-entry card" key=${at} open=${open === at} onToggle=${(event) => { if (event.currentTarget.open) setOpen(at); else if (open === at) setOpen(-1); }}>
      <summary><b><bdi>${titleOf(entry)}</bdi></b>${!enabledOf(entry) && html`<span class="chip">${t("off")}</span>`}${entry.constant && html`<span class="chip">${t("lore.constant")}</span>`}</summary>
      ${open === at && html`<${LoreEntry} entry=${entry} own=${own} change=${(next) => change(at, next)} drop=${() => drop(at)} />`}</details>`)}
    ${shown.length > most && html`<${Button} label=${t("chats.more")} onClick=${() => setMost(most + SHOWN)} />`}
    ${own && html`<div class="row"><${Button} icon="plus" label=${t("lore.add")} onClick=${add} /><${Button} kind="primary" icon="check" label=${t("lore.save")} disabled=${!dirty} onClick=${keep} /></div>`}
  </div>`;
}

/** Keys between commas, as they are typed; a key between slashes may have commas in it. */
function KeysField({ keys, onChange, ...rest }) {
  const [text, setText] = useState(keys);
  return html`<${TextField} ...${rest} value=${text} onInput=${(typed) => { setText(typed); onChange(split(typed)); }} autocomplete="off" spellcheck=${false} />`;
}
const split = (text) => (text.match(/\s*(\/(?:[^/\\]|\\.)+\/[a-z]*|[^,]+)/g) ?? []).map((key) => key.trim()).filter(Boolean);

function LoreEntry({ entry, own, change, drop }) {
  const keys = "keys" in entry || !("key" in entry) ? "keys" : "key", second = "secondary_keys" in entry || !("keysecondary" in entry) ? "secondary_keys" : "keysecondary";
  const order = "insertion_order" in entry || !("order" in entry) ? "insertion_order" : "order", place = placeOf(entry), readonly = !own;
  const places = [["before", t("lore.before")], ["after", t("lore.after")], ["depth", t("lore.atDepth")], ...(place === "other" ? [["other", t("lore.otherPlace")]] : [])];
  return html`<div class="stack">
    <${KeysField} label=${t("lore.keys")} help=${t("lore.keysHelp")} keys=${keysOf(entry, "keys", "key")} onChange=${(list) => change({ ...entry, [keys]: list })} readonly=${readonly} />
    <${TextField} label=${t("lore.content")} area rows=${4} value=${entry.content ?? ""} onInput=${(content) => change({ ...entry, content })} readonly=${readonly} dir="auto" />
    <${TextField} label=${t("lore.name")} value=${entry.comment ?? entry.name ?? ""} onInput=${(comment) => change({ ...entry, comment })} readonly=${readonly} />
    <div class="row"><${Switch} label=${t("lore.enabled")} checked=${enabledOf(entry)} disabled=${readonly} onChange=${(enabled) => change({ ...entry, enabled })} />
      <${Switch} label=${t("lore.always")} checked=${Boolean(entry.constant)} disabled=${readonly} onChange=${(constant) => change({ ...entry, constant })} />
      <${Switch} label=${t("lore.case")} checked=${Boolean(entry.case_sensitive ?? entry.extensions?.case_sensitive)} disabled=${readonly} onChange=${(on) => change({ ...extra(entry, { case_sensitive: null }), case_sensitive: on })} />
      <${Switch} label=${t("lore.second")} checked=${Boolean(entry.selective)} disabled=${readonly} onChange=${(selective) => change({ ...entry, selective })} /></div>
    ${entry.selective && html`<div class="two"><${KeysField} label=${t("lore.secondKeys")} keys=${keysOf(entry, "secondary_keys", "keysecondary")} onChange=${(list) => change({ ...entry, [second]: list })} readonly=${readonly} />
      <${Select} label=${t("lore.logic")} value=${String(entry.extensions?.selectiveLogic ?? entry.selectiveLogic ?? 0)} disabled=${readonly} options=${LOGIC.map((name, at) => [String(at), t(`lore.logic.${name}`)])} onChange=${(at) => change(extra(entry, { selectiveLogic: Number(at) }))} /></div>`}
    <div class="three"><${Select} label=${t("lore.place")} value=${place} options=${places} disabled=${readonly} onChange=${(where) => change(placed(entry, where))} />
      ${place === "depth" && html`<${TextField} label=${t("lore.depth")} value=${entry.extensions?.depth ?? 4} inputmode="numeric" readonly=${readonly} onInput=${(text) => change(extra(entry, { depth: number(text) ?? 0 }))} />`}
      <${TextField} label=${t("lore.order")} value=${entry[order] ?? ""} inputmode="numeric" readonly=${readonly} onInput=${(text) => change({ ...entry, [order]: number(text) })} />
      <${TextField} label=${t("lore.probability")} value=${entry.extensions?.probability ?? entry.probability ?? 100} inputmode="numeric" readonly=${readonly} onInput=${(text) => change(extra(entry, { probability: number(text) ?? 100, useProbability: true }))} /></div>
    ${own && html`<div><${Button} kind="quiet" icon="trash" label=${t("lore.deleteEntry")} onClick=${drop} /></div>`}
  </div>`;
}

/** Which entries a message would fire, and why: the book is tried as it stands here, saved or not. */
function LoreTest({ id, book }) {
  const [text, setText] = useState(""), [found, setFound] = useState(null), [problem, setProblem] = useState(""), newest = useRef(0);
  useEffect(() => {
    const mine = ++newest.current;
    if (!text.trim()) { setFound(null); setProblem(""); return; }
    const timer = setTimeout(async () => {
      try {
        const answer = await post(pathOf(id, "/lorebook/test"), { text, book: book ?? { entries: [] } });
        if (mine === newest.current) { setFound(answer); setProblem(""); }
      } catch (error) { if (mine === newest.current) { setFound(null); setProblem(error.message); } }
    }, 250);
    return () => clearTimeout(timer);
  }, [text, book]);
  return html`<section class="card lore-test" aria-label=${t("lore.test")}>
    <${TextField} label=${t("lore.test")} help=${t("lore.testHelp")} area rows=${2} value=${text} onInput=${setText} dir="auto" />
    <p class="faint" role="status">${problem || (found ? t("lore.fired", { n: found.fired.length, tokens: found.tokens }) : "")}</p>
    ${found && html`<ul class="fired">${found.fired.map((one) => html`<li key=${`+${one.uid}`}><b><bdi>${one.title || one.keys.join(", ")}</bdi></b> <span class="chip">${one.place}</span> <span class="faint">${one.why} · ${t("lore.tokens", { n: one.tokens })}</span><${Plain} text=${one.text} /></li>`)}
      ${found.passed_over.map((one) => html`<li key=${`-${one.uid}`} class="faint"><bdi>${one.title || one.uid}</bdi>: ${one.why}</li>`)}
      ${found.notes.map((note) => html`<li key=${note} class="faint">${note}</li>`)}</ul>`}
  </section>`;
}
