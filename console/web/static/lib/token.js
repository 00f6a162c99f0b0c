// The token of a server that is not for this machine alone: kept for this tab, and never in the address.
import { decoded } from "./addresses.js";

const KEY = "plumbob-token";

/** The token that was given in this tab, or "". */
export const savedToken = () => sessionStorage.getItem(KEY) ?? "";

export const saveToken = (token) => sessionStorage.setItem(KEY, token);

/** That of a server which has ended since, for one. */
export const forgetToken = () => sessionStorage.removeItem(KEY);

/** Takes the token out of an address such as …/#token=XYZ, as the server prints it at its start. */
export function tokenFromAddress() {
  const found = /^#token=(.+)$/.exec(location.hash);
  if (!found) return;
  saveToken(decoded(found[1]));
  history.replaceState(null, "", "#/");
}

/** Gives the token to the server, which answers with a cookie: server-sent events carry no headers. */
export async function logIn(client, token) {
  await client.post("/api/session", { token });
  saveToken(token);
}
