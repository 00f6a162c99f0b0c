// Speaks to the server: one function that reads, one that listens, one that asks for something.

/**
 * @typedef {object} Client
 * @property {boolean} isStatic   a file without a server: nothing is live, nothing can be steered
 * @property {(path: string, params?: object) => Promise<any>} get    JSON of a path such as "/api/runs"
 * @property {(path: string, body: object) => Promise<any>} post
 * @property {(path: string, params: object|(() => object), handlers: Record<string, Function>) => (() => void)} live
 */

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const TOKEN = "plumbob-token";

/** What the server refused or could not do, in its own words. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** The token that the person gave in this tab, or "". */
export const savedToken = () => sessionStorage.getItem(TOKEN) ?? "";
export const saveToken = (token) => sessionStorage.setItem(TOKEN, token);

function address(path, params = {}) {
  const url = new URL(path.replace(/^\//, ""), document.baseURI.replace(/#.*/, ""));
  for (const [name, value] of Object.entries(params)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

async function content(response) {
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  throw new ServerError(body?.error ?? `the server answered ${response.status}`, response.status);
}

async function ask(url, options) {
  try {
    return await content(await fetch(url, options));
  } catch (error) {
    if (error instanceof ServerError) throw error;
    throw new ServerError("The server does not answer. Is `plumbob ui` still running?", 0);
  }
}

/**
 * Server-sent events. A lost connection is opened again with the newest parameters, so `params` may be a function that
 * gives the cursors as they then are. handlers: one for each named event, given its data; `connection` gets "live" or "lost".
 */
function live(path, params, handlers) {
  const { connection = () => {}, ...events } = handlers;
  let [source, timer, wait, isClosed] = [null, 0, FIRST_WAIT_MS, false];
  const open = () => {
    source = new EventSource(address(path, typeof params === "function" ? params() : params));
    source.onopen = () => {
      wait = FIRST_WAIT_MS;
      connection("live");
    };
    for (const [name, handler] of Object.entries(events)) {
      source.addEventListener(name, (event) => handler(JSON.parse(event.data)));
    }
    source.onerror = () => {
      source.close();
      if (isClosed) return;
      connection("lost");
      timer = setTimeout(open, wait);
      wait = Math.min(2 * wait, LONGEST_WAIT_MS);
    };
  };
  open();
  return () => {
    isClosed = true;
    clearTimeout(timer);
    source.close();
  };
}

/** @returns {Client} of the server that this page came from */
export function serverClient() {
  const token = () => (savedToken() ? { "X-Plumbob-Token": savedToken() } : {});
  return {
    isStatic: false,
    get: (path, params) => ask(address(path, params), { headers: token() }),
    post: (path, body) =>
      ask(address(path), {
        method: "POST",
        headers: { "Content-Type": "application/json", ...token() },
        body: JSON.stringify(body),
      }),
    live,
  };
}
