// Whether the server answers, what it serves, and its sampler controls. Polls only while it loads or is gone.
import { get } from "./api.js";
import { store } from "./store.js";

const WAITS = [300, 500, 1000, 2000];
let looking = null;

/** Ask for the models and the controls until they are there. */
export function startConnection() {
  looking ??= look().finally(() => { looking = null; });
  return looking;
}

async function look() {
  for (let tries = 0; ; tries++) {
    try {
      const [models, controls] = await Promise.all([get("v1/models"), get("townhall/controls")]);
      store.set({ models: models.data, controls, health: { status: "ok" } });
      return;
    } catch (error) {
      store.set({ health: { status: error.code === "loading" ? "loading" : "gone", message: error.message } });
    }
    await new Promise((go) => setTimeout(go, WAITS[Math.min(tries, WAITS.length - 1)]));
  }
}

/** A request found nobody: from now on it is tried until somebody answers. */
export function lost(error) {
  if (error.code !== "gone" && error.code !== "broken" && error.code !== "loading") return;
  store.set({ health: { status: error.code === "loading" ? "loading" : "gone", message: error.message } });
  startConnection();
}

/** The model with that id, else the one that a new chat begins with. */
export const modelOf = (state, id) => state.models.find((model) => model.id === id) ?? state.models.find((model) => model.id === state.controls?.model) ?? state.models[0];
/** Read the models anew: one came, changed or went. */
export const refreshModels = async () => store.set({ models: (await get("v1/models")).data });
export const nameOf = (model) => model?.townhall?.name ?? model?.id ?? "";
