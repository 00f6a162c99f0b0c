// The filters of the rollouts: each is a parameter of the address.
import { html } from "../lib/html.js";
import { plainText } from "../lib/visible_text.js";
import { finishText } from "./facts.js";
import { TypedInput } from "./typed_input.js";

/** Names of the parameters that choose rollouts; the rest of the address chooses how they are shown. */
export const FILTERS = [
  "step_from", "step_to", "score_min", "score_max", "part", "part_min", "part_max",
  "length_min", "length_max", "version", "finish", "dropped", "text",
];
const TYPING_PAUSE_MS = 300;

/** The filters that are set, of an address's query. */
export const filtersOf = (query) => Object.fromEntries(FILTERS.filter((name) => query[name]).map((name) => [name, query[name]]));

const Field = ({ label, children }) => html`<label class="field"><span>${label}</span>${children}</label>`;

function NumberField({ label, name, query, onChange, step = "any" }) {
  return html`
    <${Field} label=${label}>
      <${TypedInput} type="number" step=${step} value=${query[name] ?? ""} onTake=${(value) => onChange({ [name]: value })} />
    <//>`;
}

function Choice({ label, name, query, onChange, options }) {
  return html`
    <${Field} label=${label}>
      <select value=${query[name] ?? ""} onChange=${(event) => onChange({ [name]: event.target.value })}>
        <option value="">any</option>
        ${options.map(([value, text]) => html`<option key=${value} value=${String(value)} selected=${query[name] === String(value)}>${text}</option>`)}
      </select>
    <//>`;
}

/**
 * @param {object} props
 * @param {Record<string, string>} props.query   of the address
 * @param {{parts: string[], versions: number[], finish_reasons: string[]}} props.choices   that the journal has
 * @param {(changed: Record<string, string>) => void} props.onChange   "" takes a filter away
 */
export function Filters({ query, choices, onChange }) {
  const shared = { query, onChange };
  const numSet = Object.keys(filtersOf(query)).length;
  const clear = () => onChange(Object.fromEntries(FILTERS.map((name) => [name, ""])));
  const isWide = matchMedia("(min-width: 700px)").matches;
  return html`
    <details class="filters" open=${isWide}>
      <summary>Filters${numSet > 0 && html` <span class="badge">${numSet}</span>`}</summary>
      <form onSubmit=${(event) => event.preventDefault()}>
        <${Field} label="text in prompt or answer"><${TypedInput} type="search" value=${query.text ?? ""} onTake=${(text) => onChange({ text })} pauseMs=${TYPING_PAUSE_MS} /><//>
        <${NumberField} label="step from" name="step_from" step="1" ...${shared} />
        <${NumberField} label="step to" name="step_to" step="1" ...${shared} />
        <${NumberField} label="score from" name="score_min" ...${shared} />
        <${NumberField} label="score to" name="score_max" ...${shared} />
        ${choices.parts.length > 0 && html`
          <${Choice} label="part" name="part" options=${choices.parts.map((part) => [part, plainText(part)])} ...${shared} />
          ${query.part && html`
            <${NumberField} label="part from" name="part_min" ...${shared} />
            <${NumberField} label="part to" name="part_max" ...${shared} />`}`}
        <${NumberField} label="tokens from" name="length_min" step="1" ...${shared} />
        <${NumberField} label="tokens to" name="length_max" step="1" ...${shared} />
        <${Choice} label="version" name="version" options=${choices.versions.map((version) => [version, version])} ...${shared} />
        <${Choice} label="finish" name="finish" options=${choices.finish_reasons.map((reason) => [reason, finishText(reason)])} ...${shared} />
        <${Choice} label="learnt from" name="dropped" options=${[["no", "yes"], ["yes", "no: dropped"]]} ...${shared} />
        ${numSet > 0 && html`<button type="button" onClick=${clear}>Clear filters</button>`}
      </form>
    </details>`;
}
