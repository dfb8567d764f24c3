// What Gradio leaves to be said to screen readers, keyboards and the address bar. No eval, nothing from elsewhere.
"use strict";

const THEME = "townhall-theme"; // "dark", "light" or nothing: as the system has it
const system = matchMedia("(prefers-color-scheme: dark)");

function applyTheme() {
  const chosen = localStorage.getItem(THEME);
  const dark = chosen ? chosen === "dark" : system.matches;
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  if (document.body) document.body.classList.toggle("dark", dark);
  const button = document.getElementById("theme");
  if (button) {
    button.setAttribute("aria-pressed", String(dark));
    button.title = dark ? "Light page" : "Dark page";
  }
}

function label(element, name, role) {
  if (!element) return;
  if (element.getAttribute("aria-label") !== name) element.setAttribute("aria-label", name);
  if (role && element.getAttribute("role") !== role) element.setAttribute("role", role);
}

const facts = () => document.getElementById("facts")?.dataset ?? {};

function face(id, size) {
  const image = new Image(size, size);
  image.src = `portraits/${encodeURIComponent(id)}.svg`;
  image.alt = "";
  return image;
}

// the characters as cards: a face, and who that is below the name; a small face before each chat
function dress() {
  const voices = [...document.querySelectorAll("#voices li")];
  for (const input of document.querySelectorAll("#characters input[type=radio]")) {
    const card = input.closest("label");
    const voice = voices.find((one) => one.dataset.id === input.value);
    if (!voice || card.querySelector("img")) continue;
    const name = card.querySelector("span");
    name.classList.add("name");
    const about = document.createElement("span");
    about.className = "tag";
    about.id = `about-${voices.indexOf(voice)}`;
    about.textContent = card.title = voice.textContent;
    about.setAttribute("aria-hidden", "true");
    input.setAttribute("aria-describedby", about.id);
    name.after(about);
    card.prepend(face(input.value, 40));
  }
  for (const label of document.querySelectorAll("#chats label")) {
    const input = label.querySelector("input");
    if (input.value === facts().chat) input.setAttribute("aria-current", "true");
    else input.removeAttribute("aria-current");
    const said = label.querySelector("span")?.textContent ?? "";
    if (label.dataset.said === said) continue;
    label.dataset.said = label.title = said;
    label.querySelector("img")?.remove();
    const voice = voices.find((one) => said.endsWith(` · ${one.dataset.name}`));
    if (voice) label.prepend(face(voice.dataset.id, 24));
  }
}

// Gradio writes a longer list into the rows that there are: what somebody points at, has the focus on or has scrolled to goes on standing there
let rows = [];
function steady() {
  const inputs = [...document.querySelectorAll("#chats input[type=radio]")];
  const now = inputs.map((input) => input.value);
  if (String(now) === String(rows)) return;
  const moved = (at) => (rows[at] ? now.indexOf(rows[at]) : -1);
  const list = inputs[0]?.closest(".wrap");
  const focused = inputs.indexOf(document.activeElement);
  const pointed = inputs.findIndex((input) => input.matches("label:hover *"));
  if (list && rows.length) {
    const height = list.scrollHeight / inputs.length;
    const held = [pointed, focused, list.scrollTop > 0 ? Math.floor(list.scrollTop / height) : -1].find((at) => moved(at) >= 0) ?? -1;
    if (held >= 0) list.scrollTop += (moved(held) - held) * height;
    inputs[moved(focused)]?.focus({ preventScroll: true });
  }
  rows = now;
}

// at once, so that nobody sees or hears more of a reply than the page admits to
function tellState() {
  const conversation = document.getElementById("conversation");
  conversation?.querySelector("[role=log]")?.setAttribute("aria-busy", String(conversation.classList.contains("growing")));
  const state = document.getElementById("state");
  const says = pressable("Stop") ? `${facts().name} is writing; Escape stops.` : "";
  if (state && state.textContent !== says) state.textContent = says;
}

// Gradio names every radio differently, and again whenever one is chosen, so that the arrow keys lead nowhere; one name makes a group of them.
// At once, or the next key is lost
function group() {
  for (const name of ["characters", "chats"])
    for (const input of document.querySelectorAll(`#${name} input[type=radio]`)) if (input.name !== name) input.name = name;
}

function pressable(name) {
  const press = document.getElementById("press");
  return press?.textContent.trim() === name ? press : null;
}

function nameParts() {
  const log = document.querySelector("#conversation [role=log]");
  label(log, "Conversation");
  if (log && !log.hasAttribute("tabindex")) log.tabIndex = 0;
  label(document.querySelector("#characters"), "Characters", "radiogroup");
  const list = document.querySelector("#chats");
  label(list, "Chats", "radiogroup");
  if (list && !list.hasAttribute("aria-description")) list.setAttribute("aria-description", "Enter opens the chosen chat.");
  label(document.querySelector("#side"), "Characters, chats and settings", "complementary");
  label(document.querySelector("#side .toggle-button"), "Characters, chats and settings");
  const toggle = document.querySelector("#side .toggle-button");
  const open = document.querySelector("#side")?.classList.contains("open");
  if (toggle) toggle.setAttribute("aria-expanded", String(Boolean(open)));
  const settings = document.querySelector("#settings > button.label-wrap");
  if (settings) settings.setAttribute("aria-expanded", String(settings.classList.contains("open")));
  const name = facts().name || "Reply";
  for (const said of document.querySelectorAll("#conversation [data-testid=bot]")) label(said, name, "article");
  for (const said of document.querySelectorAll("#conversation [data-testid=user]")) label(said, "You", "article");
}

function follow() {
  const { chat, persona } = facts();
  if (persona && document.body.dataset.persona !== persona) {
    document.body.dataset.persona = persona;
    document.body.style.setProperty("--face", `url("${new URL(`portraits/${encodeURIComponent(persona)}.svg`, document.baseURI)}")`);
  }
  if (chat === undefined) return;
  const here = new URL(location.href);
  if ((here.searchParams.get("chat") ?? "") !== chat) {
    if (chat) here.searchParams.set("chat", chat);
    else here.searchParams.delete("chat");
    history.replaceState(null, "", here);
  }
}

function keys(event) {
  if (event.key === "Escape" && !event.isComposing) {
    const question = event.target.closest("#renaming, #deleting");
    const stop = document.querySelector("#conversation.growing") && document.getElementById("halt");
    if (question) {
      [...question.querySelectorAll("button")].at(-1)?.click(); // "Cancel" and "Keep" stand last
      event.preventDefault();
    } else if (stop) {
      stop.click();
      document.querySelector("#message textarea")?.focus();
      event.preventDefault();
    } else if (innerWidth < 768) {
      document.querySelector("#side.open .toggle-button")?.click();
    }
  }
  if (event.key === "Enter" && !event.isComposing && event.target.matches("#chats input")) openChat(event.target);
}

// A chat is opened with Enter or a double click, too: with a button of its own, because "Open" may not be ready before the server has heard
// of the choice. Gradio asks its parts what they hold when a button is pressed, and the list knows its choice by then.
function openChat(chat) {
  if (!chat.checked) chat.click();
  document.getElementById("open-picked")?.click();
}

// What a button opens is brought into sight, and asks where one answers. It comes from the server, whenever that is, and piece by piece;
// from the first thing that somebody does then, it is theirs.
const OPENS = { "rename-chat": "#renaming", "delete-chat": "#deleting", "export-chat": "#exports" };
let opening = "";
function reveal() {
  const part = opening ? document.querySelector(opening) : null;
  if (!part?.offsetHeight) return;
  part.scrollIntoView({ block: opening === "#settings" ? "start" : "nearest" });
  const name = opening === "#renaming" ? part.querySelector("input, textarea") : null;
  if (name && name.selectionEnd - name.selectionStart < name.value.length) name.select();
  const answer = name ?? (opening === "#deleting" ? [...part.querySelectorAll("button")].at(-1) : null);
  if (answer !== document.activeElement) answer?.focus();
}

function theirs() {
  if (opening && document.querySelector(opening)?.offsetHeight) opening = "";
}

const BACK = { renaming: "#rename-chat", deleting: "#delete-chat" };

// not at keydown: Gradio takes the name at keypress, which goes to whatever has the focus by then
function keypresses(event) {
  if (event.key === "Enter" && event.target.closest("#title")) document.querySelector(BACK.renaming)?.focus();
}

function clicks(event) {
  const pressed = event.target.closest("button");
  opening = OPENS[pressed?.id] ?? (pressed?.matches("#settings > .label-wrap") ? "#settings" : "");
  if (event.target.closest("#theme")) {
    const dark = document.body.classList.contains("dark");
    if (dark !== system.matches) localStorage.removeItem(THEME);
    else localStorage.setItem(THEME, dark ? "light" : "dark");
    applyTheme();
  }
  if (event.target.closest("#press, #edit, #undo, #retry, #new")) document.querySelector("#message textarea")?.focus();
  const aside = pressed?.closest("#renaming, #deleting"); // which is about to close: the focus goes back to where it came from
  if (aside) document.querySelector(pressed.matches(".stop") ? "#message textarea" : BACK[aside.id])?.focus();
  if (event.target.closest("a.skip")) {
    document.querySelector("#message textarea")?.focus();
    event.preventDefault();
  }
  // on a phone the sidebar lies over the talk: whoever has chosen wants to see it
  if (innerWidth < 768 && event.target.closest("#new, #open-chat, #open-picked, #characters input")) {
    const side = document.querySelector("#side.open .toggle-button");
    side?.click();
  }
}

let folded = false;
function fold() {
  const toggle = document.querySelector("#side.open .toggle-button");
  if (!folded && toggle && document.querySelector("#characters input")) {
    folded = true;
    if (innerWidth < 768) toggle.click();
  }
}

let waiting = false;
function refresh() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    fold();
    recallDraft();
    dress();
    steady();
    nameParts();
    follow();
    reveal();
    if (document.body.classList.contains("dark") !== (document.documentElement.dataset.theme === "dark")) applyTheme();
  });
}

// Gradio's own pages about its API and settings are none of this one's
const address = new URL(location.href);
for (const name of [...address.searchParams.keys()]) if (name !== "chat") address.searchParams.delete(name);
if (address.href !== location.href) history.replaceState(null, "", address);

applyTheme();
system.addEventListener("change", applyTheme);
for (const deed of ["keydown", "pointerdown", "wheel", "input"]) document.addEventListener(deed, theirs, { capture: true, passive: true });
document.addEventListener("keydown", keys);
document.addEventListener("keypress", keypresses);
document.addEventListener("keypress", sends, true);
document.addEventListener("click", clicks);
document.addEventListener("click", sends, true);
document.addEventListener("dblclick", (event) => {
  const chat = event.target.closest("#chats label")?.querySelector("input");
  if (chat) openChat(chat);
});
document.addEventListener("DOMContentLoaded", () => {
  applyTheme();
  new MutationObserver(() => (tellState(), takeWords(), group(), refresh())).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["class", "aria-label", "name"] });
  group();
  refresh();
});
