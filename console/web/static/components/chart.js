// A chart of curves over steps: values at the cursor in words, arrows move it, Enter or a click opens the step.
import { onSchemeChange } from "../lib/colours.js";
import { number } from "../lib/format.js";
import { html, useEffect, useLayoutEffect, useRef, useState } from "../lib/html.js";
import { Legend } from "./legend.js";
import { makePlot, updatePlot } from "./plot.js";

const CLICK_PX = 4;

/** Whether the element has come near the screen: charts far below are not drawn yet. */
function useIsSeen(element) {
  const [isSeen, setSeen] = useState(false);
  useEffect(() => {
    const observer = new IntersectionObserver(([entry]) => entry.isIntersecting && setSeen(true), { rootMargin: "300px" });
    observer.observe(element.current);
    return () => observer.disconnect();
  }, []);
  return isSeen;
}

/** Calls back for a click that is not the end of a drag. */
function onClick(element, clicked) {
  let down = 0;
  element.addEventListener("mousedown", (event) => { down = event.clientX; });
  element.addEventListener("click", (event) => Math.abs(event.clientX - down) < CLICK_PX && clicked());
}

/** Opens the step at the cursor, of the series that is nearest to it. */
function openPoint(plot, { x, series, onPoint }) {
  const { idx, top } = plot.cursor;
  if (idx === null || idx === undefined || !onPoint) return;
  const there = series.map(({ index, values }) => ({ index, value: values[idx] })).filter(({ value }) => value !== null);
  const distance = ({ value }) => Math.abs(plot.valToPos(value, "y") - top);
  const [nearest] = there.sort((left, right) => distance(left) - distance(right));
  onPoint(x[idx], nearest?.index ?? 0);
}

/** The plot in the element: made anew when its series or colours change, else given its newer values. */
function usePlot(element, props, setIndex) {
  const plot = useRef(null);
  const newest = useRef(props);
  newest.current = props;
  const [scheme, setScheme] = useState(0);
  const isSeen = useIsSeen(element);
  const shape = [props.isLog, props.height, ...props.series.map(({ name, index, isFaint }) => `${name}/${index}/${isFaint}`)].join("|");
  useEffect(() => onSchemeChange(() => setScheme((count) => count + 1)), []);
  useLayoutEffect(() => {
    if (!isSeen) return undefined;
    const made = makePlot(element.current, () => newest.current, setIndex);
    plot.current = made;
    onClick(made.over, () => openPoint(made, newest.current));
    const observer = new ResizeObserver(() => made.setSize({ width: Math.max(60, element.current.clientWidth), height: newest.current.height }));
    observer.observe(element.current);
    return () => {
      observer.disconnect();
      made.destroy();
      plot.current = null;
    };
  }, [isSeen, shape, scheme]);
  useLayoutEffect(() => { if (plot.current) updatePlot(plot.current, newest.current); }, [props.x, props.series, props.marks]);
  return plot;
}

function lastKnown(values) {
  for (let index = values.length - 1; index >= 0; index -= 1) if (values[index] !== null) return index;
  return -1;
}

/** Keys of a chart that has the focus. */
function keyMoves(event, { plot, index, props }) {
  const last = props.x.length - 1;
  const at = index ?? last + 1;
  const moves = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: last, PageUp: at - 10, PageDown: at + 10 };
  if (event.key in moves) {
    const next = Math.max(0, Math.min(last, moves[event.key]));
    plot.setCursor({ left: plot.valToPos(props.x[next], "x"), top: plot.over.clientHeight / 2 });
  } else if (event.key === "Enter") openPoint(plot, props);
  else if (event.key === "Escape") plot.setData(plot.data);
  else return;
  event.preventDefault();
}

/**
 * @param {object} props
 * @param {string} props.label           what is drawn
 * @param {string} [props.unit]
 * @param {number[]} props.x             steps, rising
 * @param {{name: string, index: number, values: (number|null)[], isFaint?: boolean}[]} props.series   index: of its colour and dash
 * @param {{x: number, kind: string, text: string}[]} [props.marks]
 * @param {boolean} [props.isLog]
 * @param {number} props.height          in pixels
 * @param {(value: number) => string} [props.format]
 * @param {string} [props.sync]          charts with the same word share their cursor
 * @param {(x: number, index: number) => void} [props.onPoint]   gets the step and the index of the nearest series
 */
export function Chart(props) {
  const { label, unit, x, series, marks = [], height, format = number, onPoint } = props;
  const element = useRef(null);
  const [index, setIndex] = useState(null);
  const plot = usePlot(element, props, setIndex);
  const named = series.filter(({ isFaint }) => !isFaint);
  const shown = index ?? Math.max(-1, ...named.map(({ values }) => lastKnown(values)));
  const at = (values) => format(index === null ? values[lastKnown(values)] ?? null : values[index] ?? null);
  const happened = marks.filter((mark) => mark.x === x[index] && mark.kind !== "save");
  const keyed = (event) => plot.current && keyMoves(event, { plot: plot.current, index, props });
  const summary = named.map(({ name, values }) => `${name} ${at(values)}`).join(", ");
  return html`
    <figure class="chart">
      <figcaption>
        <span class="chart-title">${label}</span> <span class="dim chart-unit">${unit}</span>
        <span class="chart-now">${named.length === 1 && at(named[0].values)} <span class="dim">${shown >= 0 && `step ${number(x[shown])}`}</span></span>
      </figcaption>
      <div ref=${element} class=${`plot ${onPoint ? "opens" : ""}`} tabindex="0" role="group" onKeyDown=${keyed}
        style=${{ height: `${height}px` }} aria-label=${`${label}: ${summary}${shown >= 0 ? ` at step ${x[shown]}` : ""}`}></div>
      ${named.length > 1 && html`<${Legend} items=${named.map(({ name, index: place, values }) => ({ name, index: place, value: at(values) }))} />`}
      ${happened.length > 0 && html`<p class="chart-marks">${happened.map(({ text }) => text).join(" · ")}</p>`}
    </figure>`;
}
