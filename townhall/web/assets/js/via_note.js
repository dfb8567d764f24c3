// Below a reply: which other server's model gave it, and what that cost; or why the local model stood in.
import { html } from "./html.js";
import { MESSAGE_NOTES } from "./message.js";
import { store } from "./store.js";
import { t } from "./strings.js";

// fractions of a cent count: an answer of a small model costs less than one
const money = (value, currency) => `${new Intl.NumberFormat(store.get().language, { maximumSignificantDigits: 4 }).format(value)}${currency ? ` ${currency}` : ""}`;

function ViaNote({ message }) {
  const { sent, away } = message.receipt ?? {};
  if (away) return html`<p class="note via">${t("via.away", { why: away })}</p>`;
  if (!sent) return null;
  const counted = { n: sent.server_tokens ?? sent.sent_tokens, answer: sent.tokens ?? 0 }, price = (value) => money(value, sent.currency ?? "");
  return html`<p class="note via"><bdi>${t("via.by", { model: sent.model, host: sent.host })}</bdi>: ${t("via.tokens", counted)}${
    sent.cost !== undefined ? html`, ${t("via.cost", { cost: price(sent.cost), total: price(sent.total_cost ?? sent.cost) })}` : ""}</p>`;
}

MESSAGE_NOTES.push(ViaNote);
