// Speaks to the server: one function that reads, one that asks for something, one that listens.
import { savedToken } from "./token.js";

/**
 * @typedef {object} Client
 * @property {boolean} isStatic   a file without a server: nothing is live, nothing can be steered
 * @property {(path: string, params?: object) => Promise<any>} get    JSON of a path such as "/api/runs"
 * @property {(path: string, body: object) => Promise<any>} post
 * @property {(path: string, params: object|(() => object), handlers: Record<string, Function>) => (() => void)} live
 */

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const FORBIDDEN = 401;

/** What the server refused or could not do, in its own words. */
export class ServerError extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }

  /** Whether a token is asked for. */
  get needsToken() {
    return this.status === FORBIDDEN;
  }
}

/** Below the folder that this page is served from; parameters that are null, undefined or "" are left out. */
export function address(path, params = {}) {
  const url = new URL(path.replace(/^\//, ""), document.baseURI.replace(/#.*/, ""));
  for (const [name, value] of Object.entries(params)) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.set(name, value);
  }
  return url;
}

/** The path of a run, or of a part of it ("/metrics"), at the server. */
export const runAddress = (id, part = "") => `/api/runs/${encodeURIComponent(id)}${part}`;

async function ask(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new ServerError("The server does not answer. Is `plumbob ui` still running?", 0);
  }
  const body = await response.json().catch(() => null);
  if (response.ok) return body;
  throw new ServerError(body?.error ?? `the server answered ${response.status}`, response.status);
}

const tokenHeader = () => (savedToken() ? { "X-Plumbob-Token": savedToken() } : {});

const get = (path, params) => ask(address(path, params), { headers: tokenHeader() });

const post = (path, body) => ask(address(path), {
  method: "POST",
  headers: { "Content-Type": "application/json", ...tokenHeader() },
  body: JSON.stringify(body),
});

/**
 * Server-sent events. A lost connection is opened again with the newest parameters, so `params` may be a function that
 * gives the cursors as they then are. A tab in the background has none: a browser opens six to a server at most.
 * handlers: one for each named event, given its data; `connection` gets "live" or "lost".
 */
function live(path, params, { connection = () => {}, ...handlers }) {
  let [source, timer, wait] = [null, 0, FIRST_WAIT_MS];
  const close = () => {
    clearTimeout(timer);
    source?.close();
    source = null;
  };
  const open = () => {
    source = new EventSource(address(path, typeof params === "function" ? params() : params));
    source.onopen = () => {
      wait = FIRST_WAIT_MS;
      connection("live");
    };
    for (const [name, handler] of Object.entries(handlers)) {
      source.addEventListener(name, (event) => handler(JSON.parse(event.data)));
    }
    source.onerror = () => {
      close();
      connection("lost");
      timer = setTimeout(open, wait);
      wait = Math.min(2 * wait, LONGEST_WAIT_MS);
    };
  };
  const seen = () => {
    close();
    if (!document.hidden) open();
  };
  document.addEventListener("visibilitychange", seen);
  seen();
  return () => {
    document.removeEventListener("visibilitychange", seen);
    close();
  };
}

/** @returns {Client} of the server that this page came from */
export const serverClient = () => ({ isStatic: false, get, post, live });
