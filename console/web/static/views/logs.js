// What each worker printed, merged by time or apart; its end is followed while the run goes.
import { Empty, ErrorNote, Loading } from "../components/notes.js";
import { runAddress } from "../lib/client.js";
import { bytes } from "../lib/format.js";
import { html, useEffect, useLayoutEffect, useMemo, useRef, useState } from "../lib/html.js";
import { useLoaded } from "../lib/loaded.js";
import { plainText } from "../lib/visible_text.js";

const MERGED = "merged";
const [POLL_MS, MOST_LETTERS, END] = [2000, 1_000_000, "-1"];
/** Colours and cursor moves of terminals: ECMA-48's control sequences. */
const TERMINAL_CODES = /\u001b\[[0-?]*[ -/]*[@-~]|\u001b\][^\u0007\u001b]*(?:\u0007|\u001b\\)|\r(?=\n)/g;

/** Text as it is shown: without what was meant for a terminal; a bar of progress that was drawn over itself, as last drawn. */
const shownText = (text) => plainText(text.replace(TERMINAL_CODES, "").replace(/^.*\r(?!\n)/gm, ""));

/** The end of a log, and what is added to it: {text, size, error}. Of a long one the oldest part is dropped. */
function useLog(client, id, name, isFollowed) {
  const [state, setState] = useState({ name, text: null, size: 0, error: null });
  const cursor = useRef(END);
  useEffect(() => {
    cursor.current = END;
    setState({ name, text: null, size: 0, error: null });
  }, [client, id, name]);
  useEffect(() => {
    let [isClosed, timer] = [false, 0];
    const read = async () => {
      try {
        const { text, cursor: next, size, more } = await client.get(runAddress(id, `/logs/${encodeURIComponent(name)}`), { after: cursor.current });
        if (isClosed) return;
        cursor.current = next;
        setState((before) => ({ name, text: ((before.text ?? "") + text).slice(-MOST_LETTERS), size, error: null }));
        if (more) return read();
      } catch (error) {
        if (!isClosed) setState((before) => ({ ...before, error }));
      }
      if (isFollowed && !isClosed) timer = setTimeout(read, POLL_MS);
    };
    read();
    return () => {
      isClosed = true;
      clearTimeout(timer);
    };
  }, [client, id, name, isFollowed]);
  return state;
}

/** Lines with the letters looked for; all of them where there are none. */
function matching(text, find) {
  if (!find) return text;
  const wanted = find.toLowerCase();
  return text.split("\n").filter((line) => line.toLowerCase().includes(wanted)).join("\n");
}

function LogText({ client, run, name, find, isFollowed }) {
  const { text, size, error } = useLog(client, run.id, name, isFollowed);
  const frame = useRef(null);
  const shown = useMemo(() => matching(shownText(text ?? ""), find), [text, find]);
  useLayoutEffect(() => { if (isFollowed && frame.current) frame.current.scrollTop = frame.current.scrollHeight; }, [shown, isFollowed]);
  if (error && text === null) return html`<${ErrorNote} error=${error} />`;
  if (text === null) return html`<${Loading} what=${name} />`;
  return html`
    ${error && html`<${ErrorNote} error=${error} />`}
    <p class="dim">${bytes(size)}${text.length < size ? html`, of which the end is shown` : ""}</p>
    <pre ref=${frame} class="log" tabindex="0" role="region" aria-label=${`log ${name}`}>${shown || (find ? "No line has these letters." : "Nothing was printed.")}</pre>`;
}

function Files({ files, name, choose }) {
  const item = (file, note) => html`
    <li key=${file}><button type="button" class="quiet" aria-pressed=${file === name} onClick=${() => choose(file)}><span>${file}</span> <span class="dim">${note}</span></button></li>`;
  return html`<ul class="log-files">${item(MERGED, "all by time")}${files.filter((file) => file.name !== MERGED).map((file) => item(file.name, bytes(file.bytes)))}</ul>`;
}

export function LogsView({ run, route, client, navigate }) {
  const { query } = route;
  const { content, error, retry } = useLoaded(client, runAddress(run.id, "/logs"));
  const change = (changed) => navigate({ path: route.path, params: { ...query, ...changed }, replace: true });
  if (error) return html`<${ErrorNote} error=${error} retry=${retry} />`;
  if (!content) return html`<${Loading} what="the logs" />`;
  if (!content.files.length) return html`<${Empty} title="This run left no logs" />`;
  const name = query.file ?? MERGED;
  const isFollowed = query.follow === undefined ? run.state === "running" : query.follow === "1";
  return html`
    <section class="panel logs">
      <h2 class="hidden">Logs</h2>
      <${Files} files=${content.files} name=${name} choose=${(file) => change({ file })} />
      <div class="log-side">
        <div class="toolbar" role="search">
          <label class="grow"><span class="hidden">Find lines</span><input type="search" placeholder="lines with…" value=${query.find ?? ""} onInput=${(event) => change({ find: event.target.value })} /></label>
          <label><input type="checkbox" checked=${isFollowed} onChange=${(event) => change({ follow: event.target.checked ? 1 : 0 })} /> follow</label>
        </div>
        <${LogText} key=${name} client=${client} run=${run} name=${name} find=${query.find ?? ""} isFollowed=${isFollowed} />
      </div>
    </section>`;
}
