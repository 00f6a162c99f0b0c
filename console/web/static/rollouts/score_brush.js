// The histogram of scores, on which a range is chosen: dragged with a pointer, or moved by arrows from either end.
import { number } from "../lib/format.js";
import { html, useRef, useState } from "../lib/html.js";

const HEIGHT = 60;

/**
 * @param {object} props
 * @param {number[]} props.edges    one more than counts
 * @param {number[]} props.counts
 * @param {[number|null, number|null]} props.range   chosen scores; null: open on that side
 * @param {(low: number|null, high: number|null) => void} props.onRange
 */
export function ScoreBrush({ edges, counts, range, onRange }) {
  const frame = useRef(null);
  const [dragged, setDragged] = useState(null);
  const [first, last] = [edges[0], edges[edges.length - 1]];
  const low = dragged ? edges[Math.min(...dragged)] : range[0] ?? first;
  const high = dragged ? edges[Math.max(...dragged) + 1] : range[1] ?? last;
  const binAt = (event) => {
    const { left, width } = frame.current.getBoundingClientRect();
    return Math.max(0, Math.min(counts.length - 1, Math.floor(((event.clientX - left) / width) * counts.length)));
  };
  const began = (event) => {
    frame.current.setPointerCapture(event.pointerId);
    setDragged([binAt(event), binAt(event)]);
  };
  const ended = () => {
    if (!dragged) return;
    setDragged(null);
    choose(edges[Math.min(...dragged)], edges[Math.max(...dragged) + 1]);
  };
  const choose = (from, to) => onRange(from <= first ? null : from, to >= last ? null : to);
  const most = Math.max(1, ...counts);
  const isIn = (index) => edges[index + 1] > low && edges[index] < high;
  return html`
    <figure class="brush">
      <figcaption>Scores of ${number(counts.reduce((sum, count) => sum + count, 0))} answers: drag to choose a range</figcaption>
      <svg ref=${frame} viewBox=${`0 0 ${counts.length} ${HEIGHT}`} preserveAspectRatio="none" role="img"
        aria-label=${`Histogram of scores from ${number(first)} to ${number(last)}, at most ${most} in a bin`}
        onPointerDown=${began} onPointerMove=${(event) => dragged && setDragged([dragged[0], binAt(event)])} onPointerUp=${ended}
        onPointerCancel=${() => setDragged(null)}>
        ${counts.map((count, index) => html`
          <rect key=${index} class=${isIn(index) ? "" : "outside"} x=${index + 0.06} width="0.88"
            y=${HEIGHT * (1 - count / most)} height=${(HEIGHT * count) / most}>
            <title>${number(edges[index])} to ${number(edges[index + 1])}: ${count}</title>
          </rect>`)}
      </svg>
      <div class="brush-ends">
        <${End} name="Lowest score" value=${low} edges=${edges} onMove=${(value) => value < high && choose(value, high)} />
        <${End} name="Highest score" value=${high} edges=${edges} onMove=${(value) => value > low && choose(low, value)} />
      </div>
    </figure>`;
}

/** One end of the range: arrows move it by an edge, Home and End all the way. */
function End({ name, value, edges, onMove }) {
  const pressed = (event) => {
    const above = edges.find((edge) => edge > value + 1e-12);
    const below = edges.findLast((edge) => edge < value - 1e-12);
    const moves = { ArrowRight: above, ArrowUp: above, ArrowLeft: below, ArrowDown: below, Home: edges[0], End: edges[edges.length - 1] };
    if (moves[event.key] === undefined) return;
    event.preventDefault();
    onMove(moves[event.key]);
  };
  return html`
    <span class="brush-end" role="slider" tabindex="0" aria-label=${name} aria-valuemin=${edges[0]} aria-valuemax=${edges[edges.length - 1]}
      aria-valuenow=${value} onKeyDown=${pressed}>${number(value)}</span>`;
}
