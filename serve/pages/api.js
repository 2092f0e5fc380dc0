// Asking the endpoint: the key, waiting where it is busy, and errors that say what to do.

const MOST_TRIES = 4;
const LONGEST_WAIT_S = 10;
const BUSY = new Set([429, 503]);
let key = "";

/** An answer that is no success. `status` is 0 where none came. */
export class Problem extends Error {
  constructor(status, message, field = null) {
    super(field ? `${message} (${field})` : message);
    this.status = status;
  }
}

/** The key is kept here alone: in no storage, in no address. */
export const useKey = (text) => { key = text.trim(); };

export const hasKey = () => key !== "";

/**
 * Ask the endpoint.
 * @param {string} path relative to the page
 * @param {{body?: object, signal?: AbortSignal, onWait?: (seconds: number) => void}} options `body` makes it a POST;
 *   `onWait` hears of a busy endpoint
 * @returns {Promise<{content: any, roundTrip: number, server: number | null}>} milliseconds of the try that was answered
 */
export async function ask(path, { body, signal, onWait } = {}) {
  for (let tries = 1; ; tries += 1) {
    const started = performance.now();
    const answer = await send(path, body, signal);
    if (BUSY.has(answer.status) && tries < MOST_TRIES) {
      const seconds = Math.min(Number(answer.headers.get("Retry-After")) || 1, LONGEST_WAIT_S);
      onWait?.(seconds);
      await pause(seconds, signal);
      continue;
    }
    const content = await read(answer);
    const roundTrip = performance.now() - started;
    if (!answer.ok) throw new Problem(answer.status, advice(answer.status, content), content?.field);
    return { content, roundTrip, server: serverTime(answer) };
  }
}

/** A picture as an address for <img>, for endpoints that want a key; null where there is none. */
export async function picture(path) {
  const answer = await fetch(path, { headers: headers(false) });
  return answer.ok ? URL.createObjectURL(await answer.blob()) : null;
}

async function send(path, body, signal) {
  const options = { headers: headers(Boolean(body)), signal };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The endpoint does not answer. See whether `distilrec serve` still runs, then try again.");
  }
}

function headers(json) {
  const found = {};
  if (json) found["Content-Type"] = "application/json";
  if (key) found.Authorization = `Bearer ${key}`;
  return found;
}

async function read(answer) {
  try {
    return await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(answer.status, `The endpoint answered ${answer.status} with something that is not JSON.`);
  }
}

function advice(status, content) {
  if (status === 401) return key ? "This API key is not accepted. Check it and enter it again." : "This endpoint asks for an API key. Enter it above.";
  if (status === 429) return "The endpoint is overloaded. Wait a little, then try again.";
  if (status === 503 && (content?.code ?? "loading") === "loading") return "The model is still loading. Wait a little, then try again.";
  return content?.message ?? `The endpoint answered ${status}.`;
}

function serverTime(answer) {
  const found = /(?:^|,)\s*total;dur=([\d.]+)/.exec(answer.headers.get("Server-Timing") ?? "");
  return found ? Number(found[1]) : null;
}

function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", () => { clearTimeout(timer); reject(new DOMException("", "AbortError")); }, { once: true });
  });
}
