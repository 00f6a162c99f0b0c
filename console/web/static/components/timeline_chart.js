// Workers as rows over time, drawn as SVG; states are told apart by pattern as well as by colour.
import { duration } from "../lib/format.js";
import { html, useEffect, useMemo, useRef, useState } from "../lib/html.js";
import { shareRects, spanRects, timeTicks } from "../lib/time_axis.js";

const [ROW_PX, BAR_PX, TOP_PX, TICK_PX, MIN_LABEL_PX, MIN_STROKE_PX, MIN_SPAN_PX] = [26, 18, 40, 90, 34, 4, 3];
const [ZOOM, PAN] = [0.6, 0.25];
const STATES = ["busy", "loading", "idle", "lost"];
/** Of states that have a pattern; the style sheet colours the others. */
const FILLS = { loading: "url(#pattern-loading)", lost: "url(#pattern-lost)" };

/** The element's width in pixels, as it is now. */
function useWidth(element) {
  const [width, setWidth] = useState(600);
  useEffect(() => {
    const observer = new ResizeObserver(([entry]) => setWidth(Math.max(120, entry.contentRect.width)));
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return width;
}

/** The piece of time in sight and what changes it; `whole` is all there is. */
function useWindow(began, ended) {
  const whole = [0, Math.max(ended - began, 0.001)];
  const [piece, setPiece] = useState(null);
  const [from, to] = piece ?? whole;
  const show = (left, right) => {
    const length = Math.min(whole[1], Math.max(0.05, right - left));
    const start = Math.max(0, Math.min(whole[1] - length, left));
    setPiece(length >= whole[1] ? null : [start, start + length]);
  };
  const zoom = (factor, at = (from + to) / 2) => show(at - (at - from) * factor, at + (to - at) * factor);
  const pan = (share) => show(from + share * (to - from), to + share * (to - from));
  return { from, to, show, zoom, pan, reset: () => setPiece(null), isWhole: piece === null };
}

const Patterns = () => html`
  <defs>
    <pattern id="pattern-loading" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
      <rect width="6" height="6" class="state-ground" /><rect width="3" height="6" class="fill-loading" />
    </pattern>
    <pattern id="pattern-lost" width="6" height="6" patternUnits="userSpaceOnUse">
      <rect width="6" height="6" class="state-ground" /><path d="M0 0L6 6M6 0L0 6" class="stroke-lost" />
    </pattern>
  </defs>`;

/** Versions as strokes, as many as can be told apart, with the names of as many as can be read. */
function Published({ published, began, view, width }) {
  let [stroke, label] = [-MIN_STROKE_PX, -MIN_LABEL_PX];
  return published.map(({ time, version }) => {
    const left = ((time - began - view.from) / (view.to - view.from)) * width;
    if (left < 0 || left > width || left - stroke < MIN_STROKE_PX) return null;
    stroke = left;
    const isLabelled = left - label >= MIN_LABEL_PX && left < width - MIN_LABEL_PX / 2;
    if (isLabelled) label = left;
    return html`<g key=${version} class="published"><path d=${`M${left} 26v9`} />${isLabelled && html`<text x=${Math.max(12, left)} y="23">v${version}</text>`}</g>`;
  });
}

/** Spans as they are where there is room for them, else the shares of the states in every two pixels. */
function rectsOf(spans, view, width) {
  const seen = spans.filter(({ begin, end }) => end > view.from && begin < view.to);
  return seen.length > width / MIN_SPAN_PX ? shareRects(seen, { ...view, width }, STATES) : spanRects(seen, { ...view, width });
}

function Rows({ rows, view, width }) {
  return rows.map(({ worker, spans }, row) => html`
    <g key=${worker}>${rectsOf(spans, view, width).map(({ left, right, state, from, to }, index) => html`
      <rect key=${index} fill=${FILLS[state]} class=${`span-${state}`} x=${left.toFixed(2)} width=${Math.max(0.6, right - left).toFixed(2)}
        y=${(TOP_PX + row * ROW_PX + BAR_PX * (1 - to)).toFixed(2)} height=${(BAR_PX * (to - from)).toFixed(2)} />`)}
    </g>`);
}

/** What is below the pointer, in words. */
function spanAt(rows, row, time) {
  const found = rows[row]?.spans.find(({ begin, end }) => begin <= time && time <= end);
  if (!found) return "";
  const { begin, end, state, what } = found;
  return `${rows[row].worker}: ${state}${what ? `, ${what}` : ""}, ${duration(end - begin)} from ${duration(begin)}`;
}

const Key = () => html`
  <ul class="legend">${STATES.map((state) => html`
    <li key=${state}><svg class="key" viewBox="0 0 14 14" aria-hidden="true"><rect fill=${FILLS[state]} class=${`span-${state}`} width="14" height="14" /></svg> ${state}</li>`)}</ul>`;

function Buttons({ view }) {
  return html`
    <div class="toolbar">
      <button type="button" onClick=${() => view.zoom(ZOOM)} aria-label="zoom in">+</button>
      <button type="button" onClick=${() => view.zoom(1 / ZOOM)} aria-label="zoom out" disabled=${view.isWhole}>−</button>
      <button type="button" onClick=${() => view.pan(-PAN)} aria-label="earlier" disabled=${view.isWhole}>←</button>
      <button type="button" onClick=${() => view.pan(PAN)} aria-label="later" disabled=${view.isWhole}>→</button>
      <button type="button" onClick=${view.reset} disabled=${view.isWhole}>All</button>
      <span class="dim">${duration(view.from)} to ${duration(view.to)}</span>
      <${Key} />
    </div>`;
}

export function TimelineChart({ timeline: { workers, published, began, ended } }) {
  const element = useRef(null);
  const width = useWidth(element);
  const view = useWindow(began, ended);
  const [below, setBelow] = useState("");
  const rows = useMemo(() => workers.map(({ worker, spans }) => ({
    worker, spans: spans.map((span) => ({ ...span, begin: span.begin - began, end: span.end - began })),
  })), [workers, began]);
  const height = TOP_PX + rows.length * ROW_PX;
  const timeOf = (event) => view.from + ((event.clientX - element.current.getBoundingClientRect().left) / width) * (view.to - view.from);
  const moved = (event) => {
    const y = event.clientY - element.current.getBoundingClientRect().top;
    setBelow(spanAt(rows, Math.floor((y - TOP_PX) / ROW_PX), timeOf(event)));
  };
  const keyed = (event) => {
    const keys = { "+": () => view.zoom(ZOOM), "-": () => view.zoom(1 / ZOOM), ArrowLeft: () => view.pan(-PAN), ArrowRight: () => view.pan(PAN), Escape: view.reset };
    if (!(event.key in keys)) return;
    keys[event.key]();
    event.preventDefault();
  };
  return html`
    <${Buttons} view=${view} />
    <div class="timeline">
      <ul class="timeline-names">${rows.map(({ worker }) => html`<li key=${worker}>${worker}</li>`)}</ul>
      <div ref=${element} class="timeline-rows" tabindex="0" role="group" aria-label="Workers over time: + and - zoom, arrows move" onKeyDown=${keyed}
        onMouseMove=${moved} onMouseLeave=${() => setBelow("")} onDblClick=${(event) => view.zoom(ZOOM, timeOf(event))}>
        <svg width=${width} height=${height} aria-hidden="true">
          <${Patterns} />
          ${timeTicks(view.from, view.to, width / TICK_PX).map((time) => {
            const left = ((time - view.from) / (view.to - view.from)) * width;
            return html`<g key=${time} class="tick"><path d=${`M${left} 12V${height}`} />${left < width - 55 && html`<text x=${left + 3} y="10">${duration(time)}</text>`}</g>`;
          })}
          <${Published} published=${published} began=${began} view=${view} width=${width} />
          <${Rows} rows=${rows} view=${view} width=${width} />
        </svg>
      </div>
    </div>
    <p class="timeline-below mono">${below || "\u00a0"}</p>`;
}
