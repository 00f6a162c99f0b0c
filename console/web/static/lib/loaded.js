// What a view has read of the server, and reads again when what it asks for changes.
import { useEffect, useState } from "./html.js";

/**
 * The last content stays while the next is loading, and an answer that comes late, to what was asked before, is dropped.
 *
 * @returns {{content: any, isOld: boolean, error: Error|null, isLoading: boolean, retry: () => void}}  content: null until
 *     it is there; isOld: it is of another path, asked for before
 */
export function useLoaded(client, path, params = {}) {
  const [state, setState] = useState({ content: null, path: null, error: null, isLoading: true });
  const [tries, setTries] = useState(0);
  useEffect(() => {
    let isCurrent = true;
    setState((before) => ({ ...before, error: null, isLoading: true }));
    client.get(path, params).then(
      (content) => isCurrent && setState({ content, path, error: null, isLoading: false }),
      (error) => isCurrent && setState({ content: null, path, error, isLoading: false }),
    );
    return () => {
      isCurrent = false;
    };
  }, [client, path, JSON.stringify(params), tries]);
  return { ...state, isOld: state.path !== path, retry: () => setTries((count) => count + 1) };
}
