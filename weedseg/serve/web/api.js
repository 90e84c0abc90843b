// The service, as this page calls it. Everything that goes wrong becomes a Problem.
import { button, el } from "./dom.js";
import { sentence } from "./format.js";

export const SESSION = "/v1/session";
const TRANSIENT = new Set([0, 408, 423, 429, 502, 503, 504]);
const LONGEST_WAIT_S = 30;

export class Problem extends Error {
  constructor(status, title, detail, { requestId = "", retryS = 0 } = {}) {
    super(detail);
    Object.assign(this, { status, title, detail, requestId, retryS });
  }

  /** Whether the same may work in a while. */
  get transient() {
    return TRANSIENT.has(this.status);
  }
}

export function unreachable() {
  return new Problem(0, "No connection", "the service cannot be reached");
}

/** Make a problem of an answer's status, headers and body. */
export function problemOf(status, header, text) {
  let body = {};
  try {
    body = JSON.parse(text);
  } catch {
    // a proxy's page: only the status counts
  }
  return new Problem(status, body.title ?? "Not possible", body.detail ?? `the service answered ${status}`, {
    requestId: body.request_id ?? header("X-Request-Id") ?? "",
    retryS: Number(header("Retry-After")) || 0,
  });
}

/**
 * Call the service.
 * @returns {Promise<Response>} a good answer
 * @throws {Problem} any other one
 */
export async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { credentials: "same-origin", redirect: "error", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
  if (answer.ok) return answer;
  const problem = problemOf(answer.status, (name) => answer.headers.get(name), await answer.text());
  if (problem.status === 401 && path !== SESSION) window.dispatchEvent(new Event("signed-out"));
  throw problem;
}

export async function fetchJson(path, options = {}) {
  const answer = await patiently(() => call(path, options), options.signal, 4);
  return answer.json();
}

export async function postJson(path, body, headers = {}) {
  const options = { method: "POST", body: JSON.stringify(body) };
  const answer = await call(path, { ...options, headers: { "Content-Type": "application/json", ...headers } });
  return answer.json();
}

/** Wait; ends with an AbortError when the signal comes. */
export function pause(seconds, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => {
      clearTimeout(timer);
      reject(new DOMException("stopped", "AbortError"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, seconds * 1000);
    if (signal?.aborted) stop();
    else signal?.addEventListener("abort", stop, { once: true });
  });
}

/** How long to wait before a further try, s. */
export function waitS(problem, tries) {
  return Math.max(problem.retryS, Math.min(LONGEST_WAIT_S, 2 ** tries));
}

/** Do something again, later each time, while the service is busy or cannot be reached. */
export async function patiently(task, signal, mostTries, onWait = () => {}) {
  for (let tries = 0; ; tries += 1) {
    try {
      return await task();
    } catch (error) {
      if (!(error instanceof Problem) || !error.transient || tries + 1 >= mostTries) throw error;
      onWait(waitS(error, tries), error);
      await pause(waitS(error, tries), signal);
    }
  }
}

const ADVICE = {
  0: "Check your network connection, then try again.",
  401: "Sign in again.",
  403: "Ask the person who runs this service for a key that may do this.",
  404: "It was deleted, or its time was up. Your other uploads are under Past uploads.",
  500: "Please tell the person who runs this service, with the request number below.",
  502: "Wait a minute, then try again.",
  507: "Delete past uploads to make room.",
};

/** Show a problem as its sentence with what to do. */
export function problemBox(problem, retry = null) {
  const known = problem instanceof Problem;
  if (!known) console.error(problem);
  const text = known ? sentence(problem.detail) : "The page has made a mistake. Load it again.";
  const advice = known ? ADVICE[problem.status] : "";
  return el(
    "div",
    { class: "problem", role: "alert" },
    el("strong", {}, known ? problem.title : "Something went wrong"),
    el("p", {}, text, advice ? ` ${advice}` : ""),
    known && problem.requestId && problem.status >= 500
      ? el("p", { class: "quiet" }, `Request number: ${problem.requestId}`)
      : null,
    retry ? button("Try again", retry) : null,
  );
}
