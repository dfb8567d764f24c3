// What one browser remembers of its user's liking.
const STORED = "townhall-preferences";
let values = { sendWith: "enter" };
try { values = { ...values, ...JSON.parse(localStorage.getItem(STORED) ?? "{}") }; } catch { /* as it comes */ }

export const preference = (name) => values[name];
export function prefer(name, value) {
  values = { ...values, [name]: value };
  try { localStorage.setItem(STORED, JSON.stringify(values)); } catch { /* for this visit only */ }
}

const THEME = "townhall-theme";
export const theme = () => document.documentElement.dataset.theme ?? "system";
export function chooseTheme(chosen) {
  if (chosen === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = chosen;
  try { if (chosen === "system") localStorage.removeItem(THEME); else localStorage.setItem(THEME, chosen); } catch { /* for this visit only */ }
}
