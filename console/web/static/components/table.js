// A table that is used by keyboard: one row has the focus, arrows move it, Enter opens it, Space chooses it.
import { html, useRef, useState } from "../lib/html.js";

/**
 * @typedef {object} Column
 * @property {string} key
 * @property {string} title
 * @property {(row: any) => any} [render]    the cell; row[key] where there is none
 * @property {"left"|"right"} [align]        numbers stand right
 * @property {boolean} [isSortable]
 * @property {string} [className]            of its cells: "wide" may wrap, "rare" is hidden on a phone
 */

/** The heading of a column, a button where the table can be sorted by it. */
function Heading({ column, sort, onSort }) {
  const isSorted = sort?.key === column.key;
  const order = isSorted ? { asc: "ascending", desc: "descending" }[sort.order] : undefined;
  const arrow = isSorted ? (sort.order === "asc" ? " ↑" : " ↓") : "";
  const next = () => onSort({ key: column.key, order: isSorted && sort.order === "desc" ? "asc" : "desc" });
  return html`
    <th scope="col" class=${`${column.align ?? "left"} ${column.className ?? ""}`} aria-sort=${order}>
      ${column.isSortable && onSort ? html`<button type="button" onClick=${next}>${column.title}${arrow}</button>` : column.title || html`<span class="hidden">${column.key}</span>`}
    </th>`;
}

function Row({ row, columns, isCurrent, isChosen, onOpen, onKeyDown, onFocus }) {
  const opened = (event) => {
    if (onOpen && !event.target.closest("a, button, input, label")) onOpen(row);
  };
  return html`
    <tr tabindex=${isCurrent ? 0 : -1} class=${`${onOpen ? "opens" : ""} ${isChosen ? "chosen" : ""}`}
      onClick=${opened} onKeyDown=${onKeyDown} onFocus=${onFocus}>
      ${columns.map((column) => html`
        <td key=${column.key} class=${`${column.align ?? "left"} ${column.className ?? ""}`} data-title=${column.title}>
          ${column.render ? column.render(row) : row[column.key]}
        </td>`)}
    </tr>`;
}

/**
 * @param {object} props
 * @param {string} props.caption        what the table holds, for screen readers
 * @param {Column[]} props.columns
 * @param {any[]} props.rows
 * @param {(row: any) => string} props.rowKey
 * @param {(row: any) => void} [props.onOpen]     Enter or a click
 * @param {(row: any) => void} [props.onChoose]   Space
 * @param {Set<string>} [props.chosen]            keys of the chosen rows
 * @param {{key: string, order: "asc"|"desc"}} [props.sort]
 * @param {(sort: {key: string, order: "asc"|"desc"}) => void} [props.onSort]
 */
export function Table({ caption, columns, rows, rowKey, onOpen, onChoose, chosen, sort, onSort }) {
  const [current, setCurrent] = useState(0);
  const body = useRef(null);
  const focused = Math.min(current, Math.max(0, rows.length - 1));
  const move = (index) => body.current?.children[Math.max(0, Math.min(rows.length - 1, index))]?.focus();
  const onKeyDown = (event, index) => {
    if (event.target !== event.currentTarget) return;
    const moves = { ArrowDown: index + 1, ArrowUp: index - 1, Home: 0, End: rows.length - 1, PageDown: index + 10, PageUp: index - 10 };
    if (event.key in moves) move(moves[event.key]);
    else if (event.key === "Enter" && onOpen) onOpen(rows[index]);
    else if (event.key === " " && onChoose) onChoose(rows[index]);
    else return;
    event.preventDefault();
  };
  return html`
    <div class="table-frame">
      <table>
        <caption class="hidden">${caption}</caption>
        <thead><tr>${columns.map((column) => html`<${Heading} key=${column.key} column=${column} sort=${sort} onSort=${onSort} />`)}</tr></thead>
        <tbody ref=${body}>
          ${rows.map((row, index) => html`
            <${Row} key=${rowKey(row)} row=${row} columns=${columns} isCurrent=${index === focused}
              isChosen=${chosen?.has(rowKey(row))} onOpen=${onOpen} onFocus=${() => setCurrent(index)}
              onKeyDown=${(event) => onKeyDown(event, index)} />`)}
        </tbody>
      </table>
    </div>`;
}
