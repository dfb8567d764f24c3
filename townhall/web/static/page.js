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

// the list of characters as cards: a face and a line below the name
function dress() {
  for (const input of document.querySelectorAll("#characters input[type=radio]")) {
    const card = input.closest("label");
    if (card.querySelector("img")) continue;
    const face = new Image(40, 40);
    face.src = `portraits/${encodeURIComponent(input.value)}.svg`;
    face.alt = "";
    card.prepend(face);
  }
}

function nameParts() {
  const log = document.querySelector("#conversation [role=log]");
  label(log, "Conversation");
  if (log && !log.hasAttribute("tabindex")) log.tabIndex = 0;
  label(document.querySelector("#characters"), "Characters", "radiogroup");
  label(document.querySelector("#chats"), "Chats", "radiogroup");
  label(document.querySelector("#side .toggle-button"), "Characters, chats and settings");
  const toggle = document.querySelector("#side .toggle-button");
  const open = document.querySelector("#side")?.classList.contains("open");
  if (toggle) toggle.setAttribute("aria-expanded", String(Boolean(open)));
  const settings = document.querySelector("#settings > button.label-wrap");
  if (settings) settings.setAttribute("aria-expanded", String(settings.classList.contains("open")));
  const name = facts().name || "Reply";
  for (const said of document.querySelectorAll("#conversation [data-testid=bot]")) label(said, name, "article");
  for (const said of document.querySelectorAll("#conversation [data-testid=user]")) label(said, "You", "article");
  if (log) log.setAttribute("aria-busy", facts().busy === "1" ? "true" : "false");
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
    const stop = document.querySelector("button#stop");
    if (stop && stop.offsetParent) {
      stop.click();
      document.querySelector("#message textarea")?.focus();
      event.preventDefault();
    }
  }
}

function clicks(event) {
  if (event.target.closest("#theme")) {
    const dark = document.body.classList.contains("dark");
    if (dark !== system.matches) localStorage.removeItem(THEME);
    else localStorage.setItem(THEME, dark ? "light" : "dark");
    applyTheme();
  }
  if (event.target.closest("#send, #stop, #edit, #undo, #retry, #new")) document.querySelector("#message textarea")?.focus();
  if (event.target.closest("a.skip")) {
    document.querySelector("#message textarea")?.focus();
    event.preventDefault();
  }
  // on a phone the sidebar lies over the talk: whoever has chosen wants to see it
  if (innerWidth < 768 && event.target.closest("#new, #open-chat, #characters input")) {
    const side = document.querySelector("#side.open .toggle-button");
    if (side) setTimeout(() => side.click(), 50);
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
    dress();
    nameParts();
    follow();
    if (document.body.classList.contains("dark") !== (document.documentElement.dataset.theme === "dark")) applyTheme();
  });
}

applyTheme();
system.addEventListener("change", applyTheme);
document.addEventListener("keydown", keys);
document.addEventListener("click", clicks);
document.addEventListener("DOMContentLoaded", () => {
  applyTheme();
  new MutationObserver(refresh).observe(document.body, { subtree: true, childList: true, characterData: true, attributes: true, attributeFilter: ["class", "aria-label"] });
  refresh();
});
