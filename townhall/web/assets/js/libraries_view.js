// Libraries: make one, drop files with progress, see what was read, take documents out, search. A name in the address opens that library.
import { html, useCallback, useEffect, useRef, useState } from "./html.js";
import { del, events, get, post, uploadWatched } from "./api.js";
import { failed } from "./character_actions.js";
import { asked, Button, confirmed, Empty, FileDrop, IconButton, Progress, Spinner, TextField, ViewHead } from "./components.js";
import { Plain } from "./markdown.js";
import { go, href } from "./router.js";
import { notify } from "./store.js";
import { t } from "./strings.js";

const ROOT = "townhall/libraries", PAGE = 200;
const pathOf = (name, rest = "") => `${ROOT}/${encodeURIComponent(name)}${rest}`;
const megabytes = (bytes) => (bytes < 1e6 ? t("libraries.kilobytes", { n: Math.ceil(bytes / 1e3) }) : t("libraries.megabytes", { n: Math.round(bytes / 1e5) / 10 }));
const summary = (one) => (one.indexing ? t("libraries.indexing", one.indexing) : `${t("libraries.documents", { n: one.documents })}, ${t("libraries.passages", { n: one.passages })}, ${megabytes(one.bytes)}`);

export default function LibrariesView({ route }) {
  return route.id ? html`<${Contents} key=${route.id} name=${route.id} />` : html`<${List} />`;
}

function List() {
  const [found, setFound] = useState(null);
  const look = useCallback(() => get(ROOT).then(setFound, failed), []);
  useEffect(() => { look(); }, []);
  const make = async () => {
    const name = (await asked(t("libraries.new"), t("libraries.name"), "", t("libraries.make")))?.trim();
    if (!name) return;
    try {
      const made = await post(ROOT, { name });
      go("libraries", made.library.name);
    } catch (error) { failed(error); }
  };
  return html`<div class="view"><${ViewHead} title=${t("libraries.title")} about=${t("libraries.about")}><${Button} kind="primary" icon="plus" label=${t("libraries.new")} onClick=${make} /><//>
    ${!found && html`<${Spinner} label=${t("loading")} />`}
    ${found?.libraries.length === 0 && html`<${Empty} icon="library" title=${t("libraries.none")}><p>${t("libraries.noneText")}</p><//>`}
    ${found && !found.vectors && html`<p class="remark">${t("libraries.wordsOnly")}</p>`}
    <ul class="grid cards">${(found?.libraries ?? []).map((one) => html`<li key=${one.name} class="card library-card"><h2><a href=${href("libraries", one.name)}>${one.name}</a></h2>
      ${one.fault ? html`<p class="field-error">${one.fault}</p>` : html`<p class="faint">${summary(one)}</p>`}
      ${one.unreadable > 0 && html`<p class="faint">${t("libraries.unreadable", { n: one.unreadable })}</p>`}
      <${IconButton} icon="trash" label=${t("libraries.delete", { name: one.name })} onClick=${async () => { if (await removeLibrary(one.name)) look(); }} /></li>`)}</ul></div>`;
}

async function removeLibrary(name) {
  if (!(await confirmed(t("libraries.delete", { name }), t("libraries.deleteText"), t("delete")))) return false;
  try {
    await del(pathOf(name));
    notify(t("libraries.deleted", { name }));
    return true;
  } catch (error) { failed(error); return false; }
}

function Contents({ name }) {
  const [found, setFound] = useState(null), [problem, setProblem] = useState(""), [work, setWork] = useState(null), [filter, setFilter] = useState(""), here = useRef(true), newest = useRef(0);
  const look = useCallback(async (offset = 0) => {
    const mine = ++newest.current;
    try {
      const answer = await get(pathOf(name, `?${new URLSearchParams({ search: filter, offset, limit: PAGE })}`));
      if (here.current && mine === newest.current) setFound((before) => (offset ? { ...answer, files: [...before.files, ...answer.files] } : answer));
    } catch (error) { if (here.current) setProblem(error.message); failed(error); }
  }, [name, filter]);
  useEffect(() => { const timer = setTimeout(look, filter ? 200 : 0); return () => clearTimeout(timer); }, [look]);
  useEffect(() => () => { here.current = false; }, []);
  const index = async () => {
    for await (const { data } of events("POST", pathOf(name, "/index"))) {
      const said = JSON.parse(data);
      if (said.error) throw new Error(said.error.message);
      if (said.report) {
        notify(t("libraries.read", { n: said.report.read }));
        for (const fault of said.report.faults.slice(0, 3)) notify(`${fault.file}: ${fault.fault}`, "bad");
      } else if (here.current) setWork({ label: t("libraries.reading", said), value: said.total ? said.done / said.total : 0 });
    }
  };
  const add = async (files) => {
    let sent = 0;
    for (const file of files) {
      const label = t("libraries.uploading", { done: sent + 1, total: files.length, file: file.name });
      if (here.current) setWork({ label, value: sent / files.length });
      try {
        await uploadWatched(pathOf(name, `/documents?${new URLSearchParams({ file: file.name })}`), file, (part) => { if (here.current) setWork({ label, value: (sent + part) / files.length }); });
      } catch (error) { failed(error); }
      sent++;
    }
    await again();
  };
  const again = async () => {
    try {
      if (here.current) setWork({ label: t("libraries.reading", { done: 0, total: 0 }), value: 0 });
      await index();
    } catch (error) { failed(error); }
    if (here.current) { setWork(null); await look(); }
  };
  const take = async (file) => {
    if (!(await confirmed(t("libraries.remove", { file }), t("libraries.removeText"), t("remove")))) return;
    try {
      await del(pathOf(name, `/documents?${new URLSearchParams({ file })}`));
      await look();
    } catch (error) { failed(error); }
  };
  return html`<div class="view"><${ViewHead} title=${name} about=${found ? summary(found.library) : ""}>
      <${IconButton} icon="left" label=${t("libraries.back")} onClick=${() => go("libraries")} />
      <${Button} icon="retry" label=${t("libraries.again")} disabled=${Boolean(work)} onClick=${again} />
      <${Button} icon="trash" label=${t("delete")} aria-label=${t("libraries.delete", { name })} onClick=${async () => { if (await removeLibrary(name)) go("libraries"); }} /><//>
    ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    ${found && html`<div class="stack">
      <${FileDrop} label=${t("libraries.drop")} multiple onFiles=${add} />
      <div role="status">${work && html`<${Progress} label=${work.label} value=${work.value} />`}</div>
      ${found.library.passages > 0 && html`<${Search} name=${name} />`}
      <section class="stack" aria-label=${t("libraries.files")}><h2>${t("libraries.files")}</h2>
        ${(found.total > 20 || filter) && html`<${TextField} label=${t("libraries.filter")} type="search" value=${filter} onInput=${setFilter} />`}
        ${found.files.length === 0 ? html`<p class="faint">${t("libraries.empty")}</p>` : html`<ul class="files">${found.files.map((one) => html`<li key=${one.file}>
          <span class="file-name"><bdi>${one.file}</bdi>${one.fault && html`<span class="field-error">${one.fault}</span>`}</span><span class="faint">${megabytes(one.size)}</span>
          ${one.removable ? html`<${IconButton} icon="trash" label=${t("libraries.remove", { file: one.file })} onClick=${() => take(one.file)} />` : html`<span class="chip">${t("libraries.folder")}</span>`}</li>`)}</ul>`}
        ${found.files.length < found.total && html`<div><${Button} label=${t("chats.more")} onClick=${() => look(found.files.length)} /></div>`}</section></div>`}
    ${!found && !problem && html`<${Spinner} label=${t("loading")} />`}</div>`;
}

/** Passages that fit a question, with file, lines and how well they fit. */
function Search({ name }) {
  const [question, setQuestion] = useState(""), [found, setFound] = useState(null), [busy, setBusy] = useState(false);
  const look = async (event) => {
    event.preventDefault();
    if (!question.trim()) return;
    setBusy(true);
    try {
      setFound((await post(pathOf(name, "/search"), { question, limit: 8 })).passages);
    } catch (error) { failed(error); } finally { setBusy(false); }
  };
  return html`<section class="stack" aria-label=${t("libraries.search")}><form class="search-form" onSubmit=${look}>
      <${TextField} label=${t("libraries.search")} type="search" value=${question} onInput=${setQuestion} placeholder=${t("libraries.searchHint")} /><button class="button" type="submit" disabled=${busy}><span>${t("libraries.searchGo")}</span></button></form>
    <p class="faint" role="status">${found && t(found.length ? "libraries.hits" : "libraries.noHits", { n: found.length })}</p>
    <ol class="passages">${(found ?? []).map((one, at) => html`<li key=${at} class="card"><p><b><bdi>${one.place}</bdi></b> <span class="faint">${one.heading && `${one.heading} · `}${t("libraries.relevance", { n: Math.round(one.relevance * 100) })}</span></p><${Plain} text=${one.text} /></li>`)}</ol></section>`;
}
