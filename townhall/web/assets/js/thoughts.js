// What a reasoning model thought before its answer: folded, but open while it is thinking.
import { html, useLayoutEffect, useState } from "./html.js";
import { Icon } from "./icons.js";
import { Markdown } from "./markdown.js";
import { t } from "./strings.js";

export function Thoughts({ text, live }) {
  const [open, setOpen] = useState(live);
  useLayoutEffect(() => { if (!live) setOpen(false); }, [live]); // before anybody can open it again
  return html`<details class="thoughts" open=${open} onToggle=${(event) => setOpen(event.currentTarget.open)}>
    <summary><${Icon} name="thought" size=${16} />${live ? t("talk.thinking") : t("talk.thoughts")}</summary>${open && html`<${Markdown} text=${text} live=${live} />`}</details>`;
}
