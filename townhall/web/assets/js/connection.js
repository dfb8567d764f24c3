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

const pooled = (model) => Boolean(model.townhall?.state); // a file that is loaded on request, beside the first model
/** Models that any persona can speak through, where there are several. */
export const otherModels = (models) => models.filter(pooled);
/** Who can speak: the personas, and the first model without one. */
export const speakers = (models) => models.filter((model) => !pooled(model));
/** The speaker and, unless it is the first, the model of an id: "stacy@small" is Stacy on the model "small". */
export function partsOf(models, id) {
  if (models.some((model) => model.id === id && !pooled(model))) return { who: id, through: "" };
  const through = otherModels(models).find((model) => id === model.id || id?.endsWith(`@${model.id}`))?.id ?? "";
  return { who: through === id ? (models.find((model) => model.townhall?.bare && !pooled(model))?.id ?? "") : through ? id.slice(0, -through.length - 1) : id, through };
}
/** The id of a speaker on a model; a model without a persona has its own. */
export const idOf = (models, { who, through }) => (!through ? who : models.find((model) => model.id === who)?.townhall?.bare ? through : `${who}@${through}`);

const combined = new WeakMap(); // list of models → id → who speaks there through another model
/** The model with that id, as the list has it or a persona through another model; undefined where there is none. */
export function servedModel({ models }, id) {
  const { who, through } = partsOf(models, id), listed = models.find((model) => model.id === id);
  if (listed || !through) return listed;
  if (!combined.has(models)) combined.set(models, new Map());
  const known = combined.get(models), persona = models.find((model) => model.id === who);
  if (persona && !known.has(id)) known.set(id, { ...persona, id });
  return known.get(id);
}

/** Whose portrait stands for an id; "" where the server has none of that id. */
export function faceOf(models, id) {
  const { who, through } = partsOf(models, id);
  return servedModel({ models }, id) ? (through === id ? id : who) : "";
}

/** The model with that id, else the one that a new chat begins with. */
export const modelOf = (state, id) => servedModel(state, id) ?? state.models.find((model) => model.id === state.controls?.model) ?? state.models[0];
/** Read the models anew: one came, changed or went. */
export const refreshModels = async () => store.set({ models: (await get("v1/models")).data });
export const nameOf = (model) => model?.townhall?.name ?? model?.id ?? "";
