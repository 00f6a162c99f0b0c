// What stands where there is nothing to show: nothing yet, still loading, or an error.
import { html } from "../lib/html.js";

/** Nothing is there, and why. */
export const Empty = ({ title, children }) => html`<div class="empty"><p class="empty-title">${title}</p>${children}</div>`;

/** An error in the server's words, with a way to try again. */
export const ErrorNote = ({ error, retry }) => html`
  <div class="error-note" role="alert">
    <strong>${error.message}</strong>
    ${retry && html`<button type="button" onClick=${retry}>Try again</button>`}
  </div>`;

export const Loading = ({ what = "" }) => html`<p class="loading" role="status">Loading ${what}…</p>`;
