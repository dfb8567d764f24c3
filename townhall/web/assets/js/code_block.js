// Fenced code: its language, a button that copies it, and colours for the languages that are shipped, once it is whole.
import { html, useEffect, useState } from "./html.js";
import { CopyButton } from "./components.js";
import { memo } from "./memo.js";
import { t } from "./strings.js";

const SHIPPED = new Set("bash cpp css diff go ini java javascript json markdown python rust sql xml yaml".split(" "));
const ALIASES = { py: "python", python3: "python", js: "javascript", jsx: "javascript", mjs: "javascript", ts: "javascript", tsx: "javascript", typescript: "javascript", sh: "bash", shell: "bash", zsh: "bash", console: "bash", html: "xml", svg: "xml", yml: "yaml", c: "cpp", "c++": "cpp", h: "cpp", hpp: "cpp", golang: "go", rs: "rust", toml: "ini", md: "markdown", patch: "diff", jsonc: "json" };
const LONGEST = 20_000; // characters that are coloured

const loaded = new Map();
async function highlighter(language) {
  const { default: core } = await import("../vendor/highlight/core.js");
  if (!loaded.has(language)) loaded.set(language, import(`../vendor/highlight/${language}.js`).then((module) => core.registerLanguage(language, module.default)));
  await loaded.get(language);
  return core;
}

export const CodeBlock = memo(({ code, language, live = false }) => {
  const [coloured, setColoured] = useState(null);
  const name = language.trim().split(/[\s,{]/)[0].toLowerCase(), known = ALIASES[name] ?? name;
  useEffect(() => {
    setColoured(null);
    if (live || !SHIPPED.has(known) || code.length > LONGEST) return;
    let wanted = true;
    Promise.all([highlighter(known), import("./markdown.js")]).then(([core, { clean }]) => {
      if (wanted) setColoured(clean(core.highlight(code, { language: known, ignoreIllegals: true }).value));
    }, () => {});
    return () => { wanted = false; };
  }, [code, known, live]);
  return html`<figure class="code"><figcaption><span>${name.slice(0, 24)}</span><${CopyButton} text=${() => code} label=${t("code.copy")} /></figcaption>
    <pre tabindex="0" dir="ltr">${coloured === null ? html`<code key="plain">${code}</code>` : html`<code key="coloured" dangerouslySetInnerHTML=${{ __html: coloured }} />`}</pre></figure>`;
});
