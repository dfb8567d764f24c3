// Words as they are shown. A model's Markdown counts, its HTML is shown as it stands, a picture becomes a link; a person's words are shown
// character by character, but for fenced code. While a reply grows, only its last block is parsed and rendered again.
import { html, useLayoutEffect, useMemo, useRef, useState } from "./html.js";
import "../vendor/purify.js";
import { Marked } from "../vendor/marked.js";
import { CodeBlock } from "./code_block.js";
import { memo } from "./memo.js";
import { t } from "./strings.js";

const { DOMPurify } = globalThis; // its small build is a plain script
const MOST = 60_000; // characters that are shown at once; the rest on demand
const MARKS = /(\p{M}{6})\p{M}+/gu; // combining marks beyond six on one letter are not drawn: stacks of them reach over other lines
const TAGS = "p br strong em del a code ul ol li blockquote h1 h2 h3 h4 h5 h6 table thead tbody tr th td hr pre span".split(" ");
const escape = (text) => text.replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

const inlineMath = {
  name: "inlineMath", level: "inline",
  start: (source) => source.match(/\$|\\\(/)?.index,
  tokenizer(source) {
    const found = /^\$(?![\s$])((?:\\.|[^\\$\n])+?)(?<!\s)\$(?!\d)/.exec(source) ?? /^\\\(((?:.|\n)+?)\\\)/.exec(source);
    return found ? { type: "inlineMath", raw: found[0], text: found[1] } : undefined;
  },
  renderer: (token) => `<code class="math">${escape(token.text)}</code>`,
};
const blockMath = {
  name: "blockMath", level: "block",
  start: (source) => source.match(/\$\$|\\\[/)?.index,
  tokenizer(source) {
    const found = /^\$\$((?:[^$]|\$(?!\$))+?)\$\$(?:\n+|$)/.exec(source) ?? /^\\\[([\s\S]+?)\\\](?:\n+|$)/.exec(source);
    return found ? { type: "blockMath", raw: found[0], text: found[1].trim() } : undefined;
  },
  renderer: (token) => `<p><code class="math display">${escape(token.text)}</code></p>`,
};
const marked = new Marked({
  gfm: true,
  breaks: true,
  extensions: [inlineMath, blockMath],
  renderer: {
    html: ({ text }) => escape(text),
    image: ({ href, text }) => `<a href="${escape(href)}">${escape(text || href)}</a>`,
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});
DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName === "A") {
    node.setAttribute("target", "_blank");
    node.setAttribute("rel", "noopener noreferrer nofollow");
  }
  if (node.hasAttribute?.("class")) node.className = [...node.classList].filter((name) => /^(math|display|hljs-[\w-]+|language-[\w-]+|function_|class_|inherited__)$/.test(name)).join(" ");
});
const CLEAN = { ALLOWED_TAGS: TAGS, ALLOWED_ATTR: ["href", "title", "class", "start", "align"], ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i, ADD_URI_SAFE_ATTR: ["align", "start"], ALLOW_DATA_ATTR: false, ALLOW_ARIA_ATTR: false };
export const clean = (markup) => DOMPurify.sanitize(markup, CLEAN);

const drawn = (text) => text.replace(MARKS, "$1");

/** Top-level blocks of a text: {raw, code, language} or {raw, markup}. */
function blocksOf(tokens) {
  return tokens.filter((token) => token.type !== "space" && token.type !== "def").map((token) => (token.type === "code" && token.raw.match(/^ {0,3}[`~]{3}/)
    ? { raw: token.raw, code: token.text, language: token.lang ?? "" }
    : { raw: token.raw, markup: clean(marked.parser([token])) }));
}

/** The blocks of a text that grows: those before the last one are kept as they are. */
class GrowingText {
  constructor() { this.reset(); }

  reset() { this.text = ""; this.done = []; this.at = 0; this.blocks = []; }

  to(text) {
    if (text === this.text) return this.blocks;
    if (!text.startsWith(this.text)) this.reset();
    this.text = text;
    const tokens = marked.lexer(text.slice(this.at));
    let last = tokens.length - 1;
    while (last >= 0 && tokens[last].type === "space") last--;
    const whole = tokens.slice(0, Math.max(0, last));
    this.done = [...this.done, ...blocksOf(whole)];
    const length = whole.reduce((sum, token) => sum + token.raw.length, 0);
    // the lexer reads tabs and line ends otherwise than they were written: where lengths do not add up, the whole text is read again
    if (tokens.reduce((sum, token) => sum + token.raw.length, 0) === text.length - this.at) this.at += length;
    else { this.done = []; this.at = 0; return (this.blocks = blocksOf(marked.lexer(text))); }
    return (this.blocks = [...this.done, ...blocksOf(tokens.slice(Math.max(0, last)))]);
  }
}

const Markup = memo(({ markup, live }) => {
  const block = useRef();
  useLayoutEffect(() => {
    const formulas = live ? [] : block.current.querySelectorAll("code.math");
    if (formulas.length) import("./math.js").then(({ typeset }) => typeset(formulas), () => {});
  }, [markup, live]);
  return html`<div class="md-block" dir="auto" ref=${block} dangerouslySetInnerHTML=${{ __html: markup }} />`;
});

const Blocks = ({ blocks, live }) => blocks.map((block, at) => {
  const grows = live && at === blocks.length - 1;
  return block.markup === undefined
    ? html`<${CodeBlock} key=${at} code=${block.code} language=${block.language} live=${grows} />`
    : html`<${Markup} key=${at} markup=${block.markup} live=${grows} />`;
});

/** The part of a long text that is shown, and a button for the rest, which comes as plain text. */
function useShortened(text) {
  const [all, setAll] = useState(false);
  const long = text.length > MOST;
  const rest = long && all ? html`<${Pieces} text=${text.slice(MOST)} />` : null;
  const button = long && !all ? html`<button type="button" class="button" onClick=${() => setAll(true)}>${t("talk.showAll", { n: text.length })}</button>` : null;
  return [drawn(long ? text.slice(0, MOST) : text), html`${rest}${button}`];
}

/** Plain text in pieces that browsers lay out only where they are seen. */
const Pieces = memo(({ text }) => Array.from({ length: Math.ceil(text.length / 8192) }, (_, at) => html`<p key=${at} class="plain piece" dir="auto">${drawn(text.slice(at * 8192, (at + 1) * 8192))}</p>`));

/** A model's words. */
export function Markdown({ text, live = false }) {
  const growing = useRef(null);
  const [shown, rest] = useShortened(text);
  const blocks = useMemo(() => {
    if (!live) return blocksOf(marked.lexer(shown));
    growing.current ??= new GrowingText();
    return growing.current.to(shown);
  }, [shown, live]);
  return html`<div class="md"><${Blocks} blocks=${blocks} live=${live} />${rest}</div>`;
}

const FENCE = /^ {0,3}(`{3,}|~{3,})[^\n`]*\n([\s\S]*?)(?:^ {0,3}\1[`~]* *$|(?![\s\S]))/gm;

/** A person's words. */
export const Plain = memo(({ text }) => {
  const [shown, rest] = useShortened(text);
  const parts = [];
  let at = 0;
  for (const found of shown.matchAll(FENCE)) {
    if (found.index > at) parts.push(html`<p class="plain" dir="auto">${shown.slice(at, found.index).replace(/\n$/, "")}</p>`);
    parts.push(html`<${CodeBlock} code=${found[2].replace(/\n$/, "")} language=${found[0].match(/^ {0,3}[`~]+ *([\w+#-]*)/)[1]} />`);
    at = found.index + found[0].length;
  }
  if (at < shown.length || !parts.length) parts.push(html`<p class="plain" dir="auto">${shown.slice(at)}</p>`);
  return html`<div class="md">${parts}${rest}</div>`;
});
