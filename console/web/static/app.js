// Where the pages begin: an address becomes a view, inside the frame that all of them share.
import "./lib/theme.js";
import { Header } from "./components/header.js";
import { ErrorNote, Loading } from "./components/notes.js";
import { RunFrame } from "./components/run_frame.js";
import { TokenForm } from "./components/token_form.js";
import { navigate, runPath } from "./lib/addresses.js";
import { serverClient } from "./lib/client.js";
import { html, render, useEffect, useRef, useState } from "./lib/html.js";
import { useRoute } from "./lib/router.js";
import { forgetToken, logIn, savedToken, tokenFromAddress } from "./lib/token.js";
import { VIEWS } from "./lib/view_table.js";

/** In the place of a view whose module the server did not give. */
const NotLoaded = () => html`<${ErrorNote} error=${new Error("This view could not be loaded. Is plumbob ui still running?")} retry=${() => location.reload()} />`;

/** The component of a view, null until it is loaded. */
function useView(name) {
  const [loaded, setLoaded] = useState({ name: null, View: null });
  useEffect(() => {
    let isCurrent = true;
    VIEWS[name].load().then(
      (View) => isCurrent && setLoaded({ name, View }),
      (error) => {
        console.error(error);
        if (isCurrent) setLoaded({ name, View: NotLoaded });
      },
    );
    return () => { isCurrent = false; };
  }, [name]);
  return loaded.name === name ? loaded.View : null;
}

/** What the server is: {session, error, open}. A token that this tab has is given to it first. */
function useSession(client) {
  const [state, setState] = useState({ session: null, error: null });
  const open = async () => {
    try {
      if (!client.isStatic && savedToken()) await logIn(client, savedToken()).catch(forgetToken);
      setState({ session: await client.get("/api/session"), error: null });
    } catch (error) {
      setState({ session: null, error });
    }
  };
  useEffect(() => { open(); }, [client]);
  return { ...state, open };
}

/** Whoever opened a page by a key continues in its content, not at the top of the page before. */
function useFocus(path) {
  const before = useRef(path);
  useEffect(() => {
    if (before.current !== path && document.activeElement === document.body) document.getElementById("content")?.focus();
    before.current = path;
  }, [path]);
}

const toContent = (event) => {
  event.preventDefault();
  document.getElementById("content").focus();
};

const Page = ({ children }) => html`<main id="content" tabindex="-1">${children}</main>`;

function Body({ client, route, session, error, open }) {
  const View = useView(route.view);
  if (error?.needsToken || session?.needs_token) {
    return html`<${Page}><${TokenForm} client=${client} why="This server is open to other machines." onDone=${open} /></${Page}>`;
  }
  if (error) return html`<${Page}><${ErrorNote} error=${error} retry=${open} /></${Page}>`;
  if (!session) return html`<${Page}><${Loading} /></${Page}>`;
  const shared = { View, route, client, navigate, session };
  if (route.params.id) return html`<${RunFrame} key=${route.params.id} ...${shared} />`;
  return html`<${Page}>${View ? html`<${View} ...${shared} />` : html`<${Loading} />`}</${Page}>`;
}

function App({ client, onlyRun }) {
  const route = useRoute();
  const { session, error, open } = useSession(client);
  useEffect(() => {
    if (onlyRun && !route.params.id) navigate({ path: runPath(onlyRun), replace: true });
  }, [route.path]);
  useFocus(route.path);
  return html`
    <a class="skip" href="#content" onClick=${toContent}>Skip to the content</a>
    <${Header} session=${session} isStatic=${client.isStatic} />
    <${Body} client=${client} route=${route} session=${session} error=${error} open=${open} />`;
}

tokenFromAddress();
const exported = document.getElementById("exported-run");
const data = exported && JSON.parse(exported.textContent);
const client = data ? (await import("./lib/export_client.js")).exportClient(data) : serverClient();
render(html`<${App} client=${client} onlyRun=${data?.run} />`, document.getElementById("app"));
