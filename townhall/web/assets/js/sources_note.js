// Below a reply: the passages and lorebook entries that stood in its prompt, with file and lines.
import { html } from "./html.js";
import { MESSAGE_NOTES } from "./message.js";
import { href } from "./router.js";
import { t } from "./strings.js";

function SourcesNote({ message }) {
  const items = (message.receipt?.parts ?? []).filter((part) => part.name === "library" || part.name === "lorebook").flatMap((part) => part.items);
  if (!items.length) return null;
  const named = (item) => (item.file ? item.label.replace(item.file, item.file.split("/").pop()) : item.label);
  return html`<details class="sources"><summary>${t("sources.count", { n: items.length })}</summary><ul>${items.map((item, at) => html`<li key=${at}>
    ${item.library ? html`<a href=${href("libraries", item.library)}><bdi>${named(item)}</bdi></a>` : html`<bdi>${named(item)}</bdi>`} <span class="faint">${item.why}${item.cited === true ? ` · ${t("sources.cited")}` : item.cited === false ? ` · ${t("sources.notCited")}` : ""}</span></li>`)}</ul></details>`;
}

MESSAGE_NOTES.push(SourcesNote);
