// Starts the page: language, address, the server's models, and the shell around the views.
import { html, render } from "./html.js";
import { startConnection } from "./connection.js";
import { startKeys } from "./keys.js";
import { startRouter } from "./router.js";
import { Shell } from "./shell.js";
import { startLanguage } from "./strings.js";
import "./extras_section.js"; // these three add themselves
import "./sources_note.js";
import "./via_note.js";

startLanguage();
startRouter();
startKeys();
const app = document.getElementById("app");
app.replaceChildren();
render(html`<${Shell} />`, app);
startConnection();
