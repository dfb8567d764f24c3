// How the views of models name sizes and numbers, and where the server keeps models.
import { t } from "./strings.js";

export const ROOT = "townhall/models";
export const round = (value, digits) => Math.round(value * 10 ** digits) / 10 ** digits;
export const size = (bytes) => (bytes >= 1e9 ? t("models.gigabytes", { n: round(bytes / 1e9, 2) }) : t("models.megabytes", { n: Math.round(bytes / 1e6) }));
export const count = (n) => (n >= 1e9 ? t("models.billion", { n: round(n / 1e9, 1) }) : t("models.million", { n: Math.round(n / 1e6) }));
