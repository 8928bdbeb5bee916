// What the page asks of the server. Whatever goes wrong becomes a sentence.

const base = () => document.baseURI;

/** Something went wrong, in a sentence for a person. */
export class Trouble extends Error {
  constructor(sentence, { gone = false } = {}) {
    super(sentence);
    this.gone = gone;
  }
}

const GONE = "The server does not answer. It may have been stopped, or the network is down.";

const KEY = "pairwire-api-key"; // until the tab is closed
let declined = false;

async function answered(path, options = {}, seconds = 10) {
  const key = sessionStorage.getItem(KEY);
  const headers = key ? { ...options.headers, "x-api-key": key } : options.headers;
  const response = await fetched(path, { ...options, headers }, seconds);
  return response.status === 401 && hasOther(key) ? answered(path, options, seconds) : response;
}

/** Whether there is another key to try: asks for one, once. Several calls may be refused at the same time. */
function hasOther(key) {
  if (sessionStorage.getItem(KEY) === key && !declined) {
    const given = prompt(key ? "The server does not know this API key. Another one:" : "This server asks for an API key:")?.trim();
    if (given) sessionStorage.setItem(KEY, given);
    declined = !given;
  }
  return sessionStorage.getItem(KEY) !== key;
}

async function fetched(path, options, seconds) {
  try {
    return await fetch(new URL(path, base()), { cache: "no-store", signal: AbortSignal.timeout(seconds * 1000), ...options });
  } catch (error) {
    if (error.name === "TimeoutError") throw new Trouble(`No answer within ${seconds} seconds. The server may be overloaded or hang.`);
    throw new Trouble(GONE, { gone: true });
  }
}

/** The sentence in an error's body, in whichever of the protocols' shapes it is. */
async function sentence(response) {
  const text = await response.text();
  try {
    const body = JSON.parse(text);
    const found = [body.message, body.error?.message, body.detail, body.error].find((each) => typeof each === "string");
    if (found) return found;
  } catch {
    // No JSON: something between this page and the server answered.
  }
  return text.slice(0, 300) || response.statusText;
}

async function refused(response) {
  const reason = await sentence(response);
  const wait = Number(response.headers.get("retry-after"));
  const again = wait > 0 ? ` Try again in ${wait} second${wait === 1 ? "" : "s"}.` : "";
  if (response.status === 429) return new Trouble(`The server is full: ${reason}.${again}`);
  if (response.status === 503) return new Trouble(`The server takes no requests now: ${reason}.${again}`);
  if (response.status >= 500) return new Trouble(`The server failed on this (${response.status}): ${reason}`);
  return new Trouble(`${reason[0].toUpperCase()}${reason.slice(1)}${/[.!?]$/.test(reason) ? "" : "."}`);
}

/** JSON of a path: posts a body where there is one. Gives the answer, and where its time went. */
export async function ask(path, body) {
  const began = performance.now();
  const post = { method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } };
  const response = await answered(path, body === undefined ? {} : post, body === undefined ? 10 : 60);
  if (!response.ok) throw await refused(response);
  const answer = await response.json();
  return { answer, seconds: (performance.now() - began) / 1000, stages: stages(response.headers.get("server-timing")) };
}

/** The text of a path. */
export async function read(path) {
  const response = await answered(path);
  if (!response.ok) throw await refused(response);
  return response.text();
}

/** Whether the server serves; a Trouble says why it does not. */
export async function health() {
  const response = await answered("health");
  if (!response.ok) throw await refused(response);
}

/** Server-Timing, ``queue;dur=0.12, compute;dur=3.4`` in milliseconds -> [["queue", 0.00012], ...] in seconds. */
function stages(header) {
  return [...(header ?? "").matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, ms]) => [name, Number(ms) / 1000]);
}
