// Search in the messages of all chats; a hit leads to its message, on whatever branch it stands.
import { html, useEffect, useLayoutEffect, useRef, useState } from "./html.js";
import { get } from "./api.js";
import { Button, Spinner, ViewHead } from "./components.js";
import { problem } from "./chat_state.js";
import { go, href } from "./router.js";
import { t, when } from "./strings.js";

const PAGE = 40;

function Excerpt({ text, words }) {
  if (!words.length) return text;
  const pattern = new RegExp(`(${words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|")})`, "giu");
  return text.split(pattern).map((part, at) => (at % 2 ? html`<mark key=${at}>${part}</mark>` : part));
}

export default function SearchView({ route }) {
  const [query, setQuery] = useState(route.query.q ?? ""), [found, setFound] = useState(null), field = useRef(), newest = useRef(0);
  const look = async (offset = 0) => {
    const mine = ++newest.current;
    try {
      const answer = await get(`townhall/search?${new URLSearchParams({ q: query, limit: PAGE, offset })}`);
      if (mine === newest.current) setFound((before) => ({ ...answer, hits: offset ? [...before.hits, ...answer.hits] : answer.hits }));
    } catch (error) { if (mine === newest.current) { setFound({ hits: [], total: 0, next: null, fault: error.message }); problem(error); } }
  };
  useLayoutEffect(() => { field.current.focus(); }, []);
  useEffect(() => {
    go("search", "", { query: query ? { q: query } : {}, replace: true });
    if (!query.trim()) { newest.current++; setFound(null); return; }
    const timer = setTimeout(look, 200);
    return () => clearTimeout(timer);
  }, [query]);
  const words = query.split(/\s+/).filter(Boolean);
  return html`<div class="view search"><${ViewHead} title=${t("search.title")} />
    <div class="field"><label for="search-field" class="unseen">${t("search.label")}</label><input id="search-field" type="search" ref=${field} value=${query} placeholder=${t("search.label")} onInput=${(event) => setQuery(event.currentTarget.value)} /><p class="field-help">${t("search.hint")}</p></div>
    ${query.trim() && !found && html`<${Spinner} label=${t("loading")} />`}
    <p class="faint" role="status">${found ? found.fault ?? (found.total ? t("search.hits", { n: found.total }) : t("search.none")) : ""}</p>
    <ol class="hits">${(found?.hits ?? []).map((hit) => html`<li key=${`${hit.chat} ${hit.message}`}><a class="card" href=${href("chat", hit.chat, { message: hit.message })}><span class="hit-head"><b><bdi>${hit.title || hit.first}</bdi></b><span>${when(hit.at)}</span></span>
      <span class="hit-text" dir="auto"><i>${hit.role === "user" ? t("talk.you") : hit.name}:</i> <${Excerpt} text=${hit.excerpt} words=${words} /></span>${!hit.on_path && html`<span class="chip">${t("search.offPath")}</span>`}</a></li>`)}</ol>
    ${found?.next && html`<${Button} label=${t("chats.more")} onClick=${() => look(found.next)} />`}</div>`;
}
