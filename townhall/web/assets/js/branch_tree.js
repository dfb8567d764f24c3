// All versions of all messages as a tree; the path that is shown is marked, and any other can be gone to.
import { html, useEffect, useState } from "./html.js";
import { choose, problem, tree } from "./chat_state.js";
import { Dialog, openDialog, Spinner } from "./components.js";
import { t } from "./strings.js";

export const treeDialog = () => openDialog((close) => html`<${TreeDialog} close=${close} />`);

/** Nodes in the order of reading, each with how deep it is indented: only where a message has siblings does it go deeper. */
function laidOut(nodes) {
  const below = new Map();
  for (const node of nodes) below.set(node.parent, [...(below.get(node.parent) ?? []), node]);
  const rows = [], waiting = [...(below.get(0) ?? [])].reverse().map((node) => [node, (below.get(0)?.length ?? 0) > 1 ? 1 : 0]);
  while (waiting.length) {
    const [node, depth] = waiting.pop(), next = below.get(node.id) ?? [];
    rows.push({ ...node, depth });
    for (const child of [...next].reverse()) waiting.push([child, depth + (next.length > 1 ? 1 : 0)]);
  }
  return rows;
}

function TreeDialog({ close }) {
  const [rows, setRows] = useState(null);
  useEffect(() => { tree().then((answer) => setRows(laidOut(answer.nodes)), (error) => { problem(error); close(); }); }, []);
  const to = async (id) => { close(); await choose(id); };
  return html`<${Dialog} title=${t("tree.title")} wide onClose=${close}><p class="faint">${t("tree.help")}</p>
    ${rows ? html`<ol class="tree">${rows.map((row) => html`<li key=${row.id} style=${{ "--depth": Math.min(row.depth, 12) }} class=${row.on_path ? "on-path" : ""}>
      <button type="button" aria-current=${row.on_path ? "true" : undefined} onClick=${() => to(row.id)}><b><bdi>${row.role === "user" ? t("talk.you") : row.name}</bdi></b> <bdi>${row.excerpt || "…"}</bdi>${row.on_path && html`<span class="unseen"> (${t("tree.now")})</span>`}</button></li>`)}</ol>` : html`<${Spinner} label=${t("loading")} />`}<//>`;
}
