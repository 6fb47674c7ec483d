// Requests to this server, with a key where it asks for one.
import { at } from "./dom.js";

const STORED = "diptych-key";
// A server that is busy says when to come back; nobody waits longer than this.
const MOST_WAIT_S = 5;

let key = sessionStorage.getItem(STORED) || "";
let asking = null;

// An answer that is not what was asked for. `status` is 0 where there was none; `code` is the server's.
export class Refused extends Error {
  constructor(message, status, code) {
    super(message);
    Object.assign(this, { status, code });
  }
}

export const hasKey = () => Boolean(key);
export const soon = (ms) => new Promise((done) => setTimeout(done, ms));

async function once(path, options) {
  const headers = new Headers(options.headers);
  if (key) headers.set("authorization", `Bearer ${key}`);
  try {
    return await fetch(path, { ...options, headers });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("The server does not answer. Is it still running?", 0);
  }
}

// The answer of the server, whatever it is, but after a key was given where one is needed, and once
// again where it is busy.
export async function request(path, options = {}) {
  let used = key;
  let reply = await once(path, options);
  while (reply.status === 401) {
    // Another request may have asked for the key meanwhile.
    if (key === used) await askForKey(used ? "That key is not accepted." : "");
    used = key;
    reply = await once(path, options);
  }
  const wait = Number(reply.headers.get("retry-after"));
  if ((reply.status === 429 || reply.status === 503) && wait > 0 && wait <= MOST_WAIT_S) {
    await soon(wait * 1000);
    options.signal?.throwIfAborted();
    reply = await once(path, options);
  }
  return reply;
}

export async function refusal(reply) {
  const body = await reply.json().catch(() => null);
  const { message, code } = body?.error || {};
  return new Refused(message || `The server answered ${reply.status}.`, reply.status, code);
}

// The JSON of an answer; null where there is none.
export async function call(path, options) {
  const reply = await request(path, options);
  if (!reply.ok) throw await refusal(reply);
  return reply.status === 204 ? null : reply.json();
}

export function send(method, path, body, signal) {
  return call(path, {
    method,
    signal,
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

export const inCollection = (name, rest = "") => `/v1/collections/${encodeURIComponent(name)}${rest}`;

function askForKey(said) {
  if (asking) return asking;
  const [dialog, form, text, cancel] = ["key", "key-form", "key-text", "key-cancel"].map(at);
  at("key-say").textContent = said;
  text.value = "";
  asking = new Promise((done, failed) => {
    const ended = new AbortController();
    const { signal } = ended;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const given = text.value.trim();
      if (!given) return;
      key = given;
      sessionStorage.setItem(STORED, key);
      dialog.close();
      done();
    }, { signal });
    cancel.addEventListener("click", () => dialog.close(), { signal });
    dialog.addEventListener("close", () => {
      ended.abort();
      asking = null;
      // After a key was given this changes nothing.
      failed(new Refused("This server answers only with a key.", 401));
    }, { signal });
  });
  // An opened detail lies below.
  if (!dialog.open) dialog.showModal();
  return asking;
}
