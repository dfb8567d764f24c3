// The views of the page, by the first part of the address. A view is a module with a default component that gets {route};
// it is loaded when it is first opened. `nav` puts it into the side bar.
import { ChatView } from "./chat_view.js";

export const VIEWS = {
  chat: { component: ChatView },
  search: { title: "search.title", load: () => import("./search_view.js") },
  characters: { title: "characters.title", nav: true, icon: "people", load: () => import("./characters_view.js") },
  libraries: { title: "libraries.title", nav: true, icon: "library", load: () => import("./libraries_view.js") },
  models: { title: "models.title", nav: true, icon: "chip", load: () => import("./models_view.js") },
  preferences: { title: "preferences.title", nav: true, icon: "settings", load: () => import("./preferences_view.js") },
};
