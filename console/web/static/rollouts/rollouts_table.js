// The rollouts that the filters leave, a page of them at a time.
import { Table } from "../components/table.js";
import { href, runPath } from "../lib/addresses.js";
import { number } from "../lib/format.js";
import { html } from "../lib/html.js";
import { oneLine, plainText } from "../lib/visible_text.js";
import { dropText, finishText, versionRange } from "./facts.js";

/** Parts that have a column of their own: as many as a table can show. */
const MOST_PARTS = 4;

/** @param {{id: string, stage: string, rows: object[], parts: string[], sort: object, onSort: Function, onOpen: Function}} props */
export function RolloutsTable({ id, stage, rows, parts, sort, onSort, onOpen }) {
  const answer = (row) => href({ path: runPath(id, "rollouts", row.step, row.row), params: { stage } });
  const group = (row) => href({ path: runPath(id, "rollouts", row.step, "group", row.group_id), params: { stage } });
  const columns = [
    { key: "step", title: "step", align: "right", isSortable: true, render: (row) => html`<a href=${answer(row)} aria-label=${`Step ${row.step}, row ${row.row}`}>${row.step}</a>` },
    { key: "score", title: "score", align: "right", isSortable: true, render: (row) => number(row.score) },
    ...(parts.length > 1 ? parts.slice(0, MOST_PARTS) : []).map((part) => ({
      key: `part ${part}`, title: plainText(part), align: "right", className: "rare", render: (row) => number(row.rewards[part]),
    })),
    { key: "length", title: "tokens", align: "right", isSortable: true, render: (row) => number(row.length) },
    { key: "version", title: "version", align: "right", className: "rare", render: versionRange },
    { key: "finish", title: "finish", className: "rare", render: (row) => html`${finishText(row.finish_reason)}${row.dropped && html` <span class="badge warn" title=${dropText(row.dropped)}>dropped</span>`}` },
    { key: "group", title: "group", render: (row) => html`<a href=${group(row)}><span class="hidden">group, of which this is </span>${row.sample_index + 1}</a>` },
    { key: "prompt", title: "prompt", className: "wide excerpt", render: (row) => html`<div class="excerpt-text" dir="auto">${oneLine(row.prompt)}</div>` },
    { key: "response", title: "answer", className: "wide excerpt", render: (row) => html`<div class="excerpt-text" dir="auto">${oneLine(row.response)}</div>` },
  ];
  return html`
    <${Table} caption="Rollouts" columns=${columns} rows=${rows} rowKey=${(row) => `${row.step}/${row.row}`}
      sort=${sort} onSort=${onSort} onOpen=${onOpen} />`;
}
