// The box for messages: what is taken out of it, and what somebody goes on writing meanwhile. Loaded before page.js.
"use strict";

const box = () => document.querySelector("#message textarea");

function write(element, text) {
  element.value = text;
  element.dispatchEvent(new Event("input", { bubbles: true })); // Gradio hears of it as of typing
}

// What was in the box when it was sent, or left behind with its chat, goes out of it once the server has taken it, and until then somebody may
// write on: so it is not the server that empties the box, but this, of those words alone.
let sent = [];
let taken = 0;

function sends(event) {
  const key = event.type === "keypress";
  if (key ? event.key !== "Enter" || event.shiftKey || event.target !== box() : !event.target.closest("#press, #new, #open-chat, #open-picked")) return;
  const words = box()?.value;
  if (words && !sent.includes(words)) sent.push(words);
}

function takeWords() {
  const told = document.getElementById("facts")?.dataset;
  const here = box();
  if (!told || !here || Number(told.taken) === taken) return;
  taken = Number(told.taken);
  // Gradio looks into the box a moment after the key: what was written by then was sent, too
  const units = Number(told.units);
  if (!sent.some((one) => one.length <= units && here.value.startsWith(one)) || here.value.length < units) return;
  const words = here.value.slice(0, units);
  sent = sent.filter((one) => one.length > units && one.startsWith(words)).map((one) => one.slice(units));
  write(here, here.value.slice(units));
}

// Gradio loads the page anew when its program was started again; what somebody was writing goes with it
const DRAFT = "townhall-draft";
addEventListener("pagehide", () => sessionStorage.setItem(DRAFT, box()?.value ?? ""));
function recallDraft() {
  const draft = sessionStorage.getItem(DRAFT);
  if (!box() || draft === null) return;
  sessionStorage.removeItem(DRAFT);
  if (draft && !box().value) write(box(), draft);
}
