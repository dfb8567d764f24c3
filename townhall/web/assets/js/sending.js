// The message that is on its way, kept by the tab: where the page is loaded again in the middle of it, it is sent once more, and the server takes it once.
const STORED = "townhall-sending";
export const NEW_DRAFT = "townhall-draft"; // of the chat that is not there yet

/** `body` goes to that chat; "" is the chat that is not there yet. */
export function underway(chat, body) {
  try { sessionStorage.setItem(STORED, JSON.stringify({ chat, body })); } catch { /* too long to be kept */ }
}
export const arrived = () => sessionStorage.removeItem(STORED);

let left = null; // what an earlier page of this tab had on its way
try { left = JSON.parse(sessionStorage.getItem(STORED)); } catch { /* nothing */ }
if (left?.chat === "") { // back into the message box
  try { sessionStorage.setItem(NEW_DRAFT, left.body.text); } catch { /* too long to be kept */ }
  left = null;
  arrived();
}

/** What is still to be sent to that chat, once. */
export function leftFor(chat) {
  const body = left?.chat === chat ? left.body : null;
  if (body) left = null;
  return body;
}
