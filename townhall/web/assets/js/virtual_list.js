// A list that keeps only the rows near the window in the document. Heights are estimated until they are measured; what is read stays where it is.
import { html, useCallback, useEffect, useLayoutEffect, useMemo, useReducer, useRef } from "./html.js";

const ALL = 120; // rows: shorter lists are rendered whole, so that the browser's own search finds everything
const MARGIN = 900; // pixels rendered above and below
const NEAR = 48; // pixels from the end that count as the end

/**
 * rows: array; keyOf(row, at): unique and lasting; render(row, at); estimate(row): pixels. `handle.current` gets {toEnd(), toRow(at), atEnd()}.
 * onRange(from, to): rows that are shown. onEnd(atEnd): the reader came to the end, or left it. children: what follows the rows.
 */
export function VirtualList({ rows, keyOf, render, estimate, handle, onRange, onEnd, children, ...rest }) {
  const [, again] = useReducer((n) => n + 1, 0);
  const scroller = useRef(), heights = useRef(new Map()), nodes = useRef(new Map()), range = useRef([0, 0]);
  const stuck = useRef(true), target = useRef(null), latest = useRef();
  const version = useRef(0), lastTop = useRef(0), lastHeight = useRef(0);

  const offsets = useMemo(() => {
    const found = new Float64Array(rows.length + 1);
    for (let at = 0; at < rows.length; at++) found[at + 1] = found[at] + (heights.current.get(keyOf(rows[at], at)) ?? estimate(rows[at], at));
    return found;
  }, [rows, version.current]);
  latest.current = { rows, offsets, keyOf, onEnd };

  const place = () => {
    const { rows, offsets } = latest.current, box = scroller.current;
    if (rows.length <= ALL || !box) return [0, rows.length];
    const top = stuck.current && target.current === null ? offsets[rows.length] - box.clientHeight : box.scrollTop;
    const first = (pixel) => { let low = 0, high = rows.length; while (low < high) { const middle = (low + high) >> 1; if (offsets[middle + 1] <= pixel) low = middle + 1; else high = middle; } return low; };
    return [first(top - MARGIN), Math.min(rows.length, first(top + box.clientHeight + MARGIN) + 1)];
  };
  // before the first layout only the end is rendered
  range.current = scroller.current ? place() : rows.length <= ALL ? [0, rows.length] : [Math.max(0, rows.length - 12), rows.length];
  const [from, to] = range.current;

  const settle = useCallback(() => {
    const box = scroller.current;
    if (target.current !== null) {
      const row = nodes.current.get(latest.current.keyOf(latest.current.rows[target.current], target.current));
      if (row) box.scrollTop += row.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 3;
      else box.scrollTop = Math.max(0, latest.current.offsets[target.current] - box.clientHeight / 3);
    } else if (stuck.current) {
      // the reader moved up, and the event that tells of it is still to come
      if (box.scrollTop < lastTop.current - 1 && box.scrollHeight >= lastHeight.current) { stuck.current = false; latest.current.onEnd?.(false); }
      else box.scrollTop = box.scrollHeight;
    }
    lastTop.current = box.scrollTop;
    lastHeight.current = box.scrollHeight;
  }, []);

  const observer = useMemo(() => new ResizeObserver((entries) => {
    const box = scroller.current;
    if (!box) return;
    const top = box.getBoundingClientRect().top;
    let above = 0, changed = false;
    for (const { target: row } of entries) {
      if (!row.isConnected) continue;
      const height = row.getBoundingClientRect().height, key = row.rowKey, before = heights.current.get(key) ?? row.estimated;
      if (Math.abs(height - before) < 0.5 && heights.current.has(key)) continue;
      heights.current.set(key, height);
      changed = true;
      if (row.getBoundingClientRect().bottom - height + Math.min(height, before) <= top && before !== height) above += height - before;
    }
    if (!changed) return;
    version.current++;
    if (!stuck.current && target.current === null && above && latest.current.rows.length > ALL) box.scrollTop += above;
    settle();
    again();
  }), []);
  useEffect(() => () => observer.disconnect(), []);
  useLayoutEffect(() => {
    const box = scroller.current, watch = new ResizeObserver(() => { settle(); again(); });
    watch.observe(box);
    return () => watch.disconnect();
  }, []);
  useLayoutEffect(settle, [rows]);
  useEffect(() => { onRange?.(from, to); }, [from, to, rows]);

  const scrolled = () => {
    const box = scroller.current, end = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
    // what grows below the reader does not take them from the end; only moving up does
    const stays = end || (stuck.current && box.scrollTop >= lastTop.current - 1);
    lastTop.current = box.scrollTop;
    lastHeight.current = box.scrollHeight;
    if (stays !== stuck.current) { stuck.current = stays; onEnd?.(stays); }
    const next = place();
    if (next[0] !== range.current[0] || next[1] !== range.current[1]) again();
  };
  const moved = () => { target.current = null; }; // from the person's first own movement on, no row is held
  if (handle) handle.current = {
    toEnd() { target.current = null; stuck.current = true; onEnd?.(true); again(); settle(); },
    toRow(at) { stuck.current = false; target.current = at; onEnd?.(false); again(); requestAnimationFrame(() => { settle(); again(); }); },
    atEnd: () => stuck.current,
    node: (key) => nodes.current.get(key),
  };
  const hold = (key, estimated) => (node) => {
    const before = nodes.current.get(key);
    if (before && before !== node) { observer.unobserve(before); nodes.current.delete(key); }
    if (node && before !== node) { node.rowKey = key; node.estimated = estimated; nodes.current.set(key, node); observer.observe(node); }
  };
  return html`<div ref=${scroller} onScroll=${scrolled} onWheel=${moved} onTouchMove=${moved} onKeyDown=${moved} onPointerDown=${moved} ...${rest}>
    <div key="above" style=${{ height: `${offsets[from]}px` }}></div>
    ${rows.slice(from, to).map((row, n) => { const at = from + n, key = keyOf(row, at); return html`<${Row} key=${key} id=${key} hold=${hold} estimated=${estimate(row, at)}>${render(row, at)}<//>`; })}
    <div key="below" style=${{ height: `${offsets[rows.length] - offsets[to]}px` }}></div>
    ${children}</div>`;
}

/** One row; its node is known to the list as long as it is there. */
function Row({ id, hold, estimated, children }) {
  const node = useRef();
  useLayoutEffect(() => { const keep = hold(id, estimated); keep(node.current); return () => keep(null); }, [id]);
  return html`<div class="list-row" ref=${node}>${children}</div>`;
}
