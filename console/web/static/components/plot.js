// What uPlot is told: axes, series and marks in the colours of the page.
import { colour, dash, seriesVariable } from "../lib/colours.js";
import { number } from "../lib/format.js";
import { MARKS } from "../lib/marks.js";
import uPlot from "../vendor/uplot/uPlot.esm.js";

const [FAINT, LINE_PX, AXIS_PX, GLYPH_PX] = [0.3, 1.75, 54, 11];
const LOGARITHMIC = 3;
/** Steps are whole numbers, and so are the distances of their ticks. */
const STEPS = [1, 2, 5].flatMap((first) => Array.from({ length: 9 }, (_, power) => first * 10 ** power)).sort((a, b) => a - b);

/** Columns as uPlot takes them; on a logarithmic axis what is not above 0 has no place. */
export const plotData = ({ x, series, isLog }) => [
  x,
  ...series.map(({ values }) => (isLog ? values.map((value) => (value > 0 ? value : null)) : values)),
];

function axis(isX, format) {
  const [ink, line] = [colour("--dim"), colour("--line")];
  const font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const shared = { stroke: ink, font, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 } };
  if (isX) return { ...shared, size: 24, gap: 4, incrs: STEPS, values: (_, splits) => splits.map((value) => number(value)) };
  const label = (value) => (value === null ? "" : format(value));
  return { ...shared, size: AXIS_PX, gap: 4, space: 26, values: (_, splits) => splits.map(label) };
}

/** The axis of values: of a metric that never changes as high as its value, where uPlot would take a hundred of a 0. */
function valueRange(plot, low, high) {
  if (low === null) return [0, 1];
  if (low === high) return low === 0 ? [0, 1] : [low - Math.abs(low) / 2, low + Math.abs(low) / 2];
  return uPlot.rangeNum(low, high, 0.1, true);
}

/** Checkpoints as short strokes at the bottom, all else as a line from top to bottom below its glyph. */
function drawMarks(plot, marks) {
  const { ctx, bbox } = plot;
  const ratio = devicePixelRatio;
  ctx.save();
  ctx.font = `bold ${GLYPH_PX * ratio}px sans-serif`;
  ctx.textAlign = "center";
  for (const { x, kind } of marks) {
    const at = Math.round(plot.valToPos(x, "x", true));
    if (at < bbox.left || at > bbox.left + bbox.width) continue;
    const { glyph, colour: variable } = MARKS[kind];
    const bottom = bbox.top + bbox.height;
    [ctx.strokeStyle, ctx.fillStyle, ctx.lineWidth] = [colour(variable), colour(variable), ratio];
    ctx.setLineDash(kind === "steer" ? [4 * ratio, 3 * ratio] : []);
    ctx.beginPath();
    ctx.moveTo(at, kind === "save" ? bottom - 6 * ratio : bbox.top + 12 * ratio);
    ctx.lineTo(at, bottom);
    ctx.stroke();
    if (kind !== "save") ctx.fillText(glyph, at, bbox.top + 10 * ratio);
  }
  ctx.restore();
}

function line({ name, index, isFaint }) {
  return {
    label: name,
    stroke: colour(seriesVariable(index)),
    width: isFaint ? 1 : LINE_PX,
    alpha: isFaint ? FAINT : 1,
    dash: dash(index),
    spanGaps: true,
    points: { size: 5, ...(isFaint ? { show: false } : {}) },
  };
}

/**
 * @param {HTMLElement} target
 * @param {() => object} props   the chart's newest properties (chart.js)
 * @param {(index: number|null) => void} onCursor   gets the place in x that the cursor is at
 */
export function makePlot(target, props, onCursor) {
  const { series, isLog, height, format = number, sync } = props();
  const options = {
    width: Math.max(60, target.clientWidth),
    height,
    padding: [9, 12, 0, 0],
    legend: { show: false },
    scales: { x: { time: false }, y: isLog ? { distr: LOGARITHMIC } : { range: valueRange } },
    axes: [axis(true, format), axis(false, format)],
    series: [{}, ...series.map(line)],
    cursor: { drag: { x: true, y: false }, points: { size: 7 }, ...(sync ? { sync: { key: sync, scales: ["x", null] } } : {}) },
    hooks: {
      draw: [(plot) => drawMarks(plot, props().marks ?? [])],
      setCursor: [(plot) => onCursor(plot.cursor.idx ?? null)],
    },
  };
  return new uPlot(options, plotData(props()), target);
}

/** Newer columns; where somebody has zoomed in, the piece that is looked at stays. */
export function updatePlot(plot, props) {
  const { min, max } = plot.scales.x;
  const [x] = plot.data;
  const isZoomed = x.length > 1 && (min > x[0] || max < x[x.length - 1]);
  plot.setData(plotData(props), !isZoomed);
  if (isZoomed) plot.redraw();
}
