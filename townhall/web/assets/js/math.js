// Formulas, set by KaTeX, which is fetched with its fonts when the first one comes up. It builds nodes: no markup of its own is trusted.
let ready = null;

function load() {
  const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL("../vendor/katex/katex.css", import.meta.url).href });
  const styled = new Promise((go) => { link.onload = link.onerror = go; });
  document.head.append(link);
  return Promise.all([import("../vendor/katex/katex.js"), styled]).then(() => globalThis.katex);
}

export async function typeset(formulas) {
  ready ??= load();
  const katex = await ready;
  for (const formula of formulas) {
    const source = formula.textContent;
    const set = Object.assign(document.createElement("span"), { className: formula.className, title: source });
    try {
      katex.render(source, set, { displayMode: formula.classList.contains("display"), throwOnError: true, trust: false, maxSize: 12, maxExpand: 200, strict: "ignore" });
      formula.replaceWith(set);
    } catch { /* no formula after all: it stays as it was written */ }
  }
}
