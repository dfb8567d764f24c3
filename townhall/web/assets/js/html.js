// Preact, its hooks and htm in one import: html`<div>…</div>` makes virtual nodes.
import { createContext, createPortal, Fragment, h, render } from "../vendor/preact.js";
import { useCallback, useContext, useEffect, useId, useLayoutEffect, useMemo, useReducer, useRef, useState } from "../vendor/preact-hooks.js";
import htm from "../vendor/htm.js";

export const html = htm.bind(h);
export {
  createContext, createPortal, Fragment, h, render,
  useCallback, useContext, useEffect, useId, useLayoutEffect, useMemo, useReducer, useRef, useState,
};
