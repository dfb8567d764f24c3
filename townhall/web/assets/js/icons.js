// Line icons of 24 units; drawn for this page.
import { html } from "./html.js";

const PATHS = {
  plus: "M12 5v14M5 12h14",
  search: "M11 4a7 7 0 1 0 0 14 7 7 0 0 0 0-14zm5 12 4 4",
  chat: "M5 5h14a1 1 0 0 1 1 1v9a1 1 0 0 1-1 1h-8l-5 4v-4H5a1 1 0 0 1-1-1V6a1 1 0 0 1 1-1z",
  people: "M9 11a3 3 0 1 0 0-6 3 3 0 0 0 0 6zM3 19c0-3 2.500-5 6-5s6 2 6 5M16 5.500a3 3 0 0 1 0 5.500M18 14.500c2 .7 3 2.200 3 4.500",
  library: "M5 4v16M9 4v16M13 4h3v16h-3zM18.500 5l2.500 14.500",
  chip: "M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4",
  settings: "M4 7h9M17 7h3M4 17h3M11 17h9M15 5v4M9 15v4",
  help: "M9 9a3 3 0 1 1 4.500 2.600C12.500 12.300 12 13 12 14M12 17.500v.1M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18z",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  retry: "M4 12a8 8 0 0 1 14-5.300L20 9M20 4v5h-5M20 12a8 8 0 0 1-14 5.300L4 15M4 20v-5h5",
  undo: "M8 5 4 9l4 4M4 9h10a5 5 0 0 1 0 10h-3",
  edit: "M5 19h3L19 8l-3-3L5 16zM14 7l3 3",
  copy: "M9 9h10v10H9zM15 9V5H5v10h4",
  check: "M5 12.500 10 17l9-10",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10.500 11v5M13.500 11v5",
  branch: "M7 4v9a4 4 0 0 0 4 4h6M14 14l3 3-3 3M7 4 4.500 6.500M7 4l2.500 2.500",
  tree: "M6 4v12h5M6 9h5M14 6.500h5M14 9h5M14 16h5",
  left: "M15 5l-7 7 7 7",
  right: "M9 5l7 7-7 7",
  down: "M5 9l7 7 7-7",
  up: "M5 15l7-7 7 7",
  thumb: "M7 11v9H4v-9zM7 11l4-7a2.500 2.500 0 0 1 2.400 3l-.7 3H18a2 2 0 0 1 2 2.300l-1 6A2 2 0 0 1 17 20H7",
  more: "M6 12h.1M12 12h.1M18 12h.1",
  close: "M6 6l12 12M18 6 6 18",
  menu: "M4 7h16M4 12h16M4 17h16",
  export: "M12 4v11M8 11l4 4 4-4M5 20h14",
  import: "M12 16V5M8 9l4-4 4 4M5 20h14",
  tag: "M4 5h7l9 9-6 6-9-9zM8 8.500v.1",
  folder: "M4 6h6l2 2h8v11H4z",
  continue: "M5 6l7 6-7 6zM13 6l7 6-7 6z",
  thought: "M8 17a5 5 0 1 1 1-9.900A5 5 0 0 1 18 9a4 4 0 0 1-1 8zM7 20.500v.1",
  warning: "M12 4 2.500 20h19zM12 10v4M12 17v.1",
  link: "M10 14a4 4 0 0 0 6 0l3-3a4 4 0 0 0-6-6l-1 1M14 10a4 4 0 0 0-6 0l-3 3a4 4 0 0 0 6 6l1-1",
  pin: "M9 4h6l-1 6 3 3H7l3-3zM12 13v7",
  target: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM12 9a3 3 0 1 0 0 6 3 3 0 0 0 0-6z",
};

/** Decorative: whatever holds it has a name of its own. */
export function Icon({ name, size = 18 }) {
  return html`<svg class="icon" width=${size} height=${size} viewBox="0 0 24 24" aria-hidden="true" focusable="false"><path d=${PATHS[name]} /></svg>`;
}
