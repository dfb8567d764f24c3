// One store for the whole page: a plain object, replaced by `set`, read by components through `useStore`.
import { useEffect, useLayoutEffect, useReducer, useRef } from "./html.js";

export function createStore(initial) {
  let state = initial;
  const listeners = new Set();
  return {
    get: () => state,
    /** Merge a patch, or what a function makes of the state, into the state. */
    set(patch) {
      const change = typeof patch === "function" ? patch(state) : patch;
      if (!change) return;
      state = { ...state, ...change };
      for (const listener of [...listeners]) listener(state);
    },
    subscribe(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}

/** What `select` makes of the state; the component renders again when that is another value (Object.is). */
export function useStore(select, from = store) {
  const [, again] = useReducer((n) => n + 1, 0);
  const value = select(from.get());
  const latest = useRef();
  latest.current = { select, value };
  useLayoutEffect(() => {
    const look = (state) => { if (!Object.is(latest.current.select(state), latest.current.value)) again(); };
    look(from.get()); // what changed between the render and now
    return from.subscribe(look);
  }, [from]);
  return value;
}

/** Run `effect` when the component is there and whenever one of `inputs` changed. */
export const useWhen = (effect, inputs) => useEffect(() => { effect(); }, inputs);

export const store = createStore({
  route: { view: "chat", id: "", query: {} },
  health: { status: "connecting" },
  models: [],        // as /v1/models lists them
  controls: null,    // declared sampler settings and their defaults
  language: "en",
  theme: "system",
  sideOpen: false,   // on a narrow screen
  panel: "",         // the drawer at the right: "settings", "tree" or nothing
  dialog: null,      // {render, resolve}
  notices: [],       // short notes at the bottom
  problem: "",       // the fault shown above the composer
  said: "",          // what the live region announces
  keyNeeded: false,
});

let noticeId = 0;
/** A short note at the bottom of the page for a few seconds; also read to screen readers. */
export function notify(text, kind = "info") {
  const id = ++noticeId;
  store.set((state) => ({ notices: [...state.notices.slice(-2), { id, text, kind }] }));
  setTimeout(() => store.set((state) => ({ notices: state.notices.filter((one) => one.id !== id) })), 6000);
}
/** Have a screen reader say something that is visible anyway. */
export const announce = (text) => store.set({ said: text });
