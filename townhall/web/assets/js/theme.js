// Applies the chosen theme before the first paint; loaded as a classic script for that reason.
"use strict";
try {
  const chosen = localStorage.getItem("townhall-theme");
  if (chosen === "dark" || chosen === "light") document.documentElement.dataset.theme = chosen;
} catch { /* storage is off: the system's theme it is */ }
