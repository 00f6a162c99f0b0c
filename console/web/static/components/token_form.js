// Asks for the token that `plumbob ui` printed at its start.
import { html, useState } from "../lib/html.js";
import { logIn } from "../lib/token.js";

/** @param {{client: object, why: string, onDone: () => void}} props */
export function TokenForm({ client, why, onDone }) {
  const [token, setToken] = useState("");
  const [error, setError] = useState(null);
  const send = (event) => {
    event.preventDefault();
    logIn(client, token.trim()).then(onDone, setError);
  };
  return html`
    <form class="panel token-form" onSubmit=${send}>
      <h2>A token is needed</h2>
      <p class="dim">${why} <code>plumbob ui</code> printed it when it was started.</p>
      <div class="toolbar">
        <label>Token <input type="password" autocomplete="off" value=${token} onInput=${(event) => setToken(event.target.value)} /></label>
        <button type="submit" class="primary" disabled=${!token.trim()}>Use it</button>
      </div>
      ${error && html`<p class="bad" role="alert">${error.message}</p>`}
    </form>`;
}
