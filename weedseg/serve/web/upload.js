// Uploads that go on after a dropped connection or a reloaded page: the tus protocol, version 1.0.0.
import { Problem, call, patiently, pause, problemOf, unreachable, waitS } from "./api.js";

const ADDRESS = "/v1/uploads";
const TUS = { "Tus-Resumable": "1.0.0" };
const PIECE_BYTES = 8 << 20;
const MOST_TRIES = 40;
const AT_ONCE = 2;
const MARK = "weedseg upload ";

export class Upload {
  /**
   * @param {File} file
   * @param {string} name what the service is to call it
   * @param {function(Upload): void} onChange called whenever state, sentBytes or note change
   */
  constructor(file, name, onChange) {
    Object.assign(this, { file, name, onChange, sentBytes: 0, note: "", problem: null, url: "" });
    /** @type {"chosen"|"sending"|"done"|"failed"} */
    this.state = "chosen";
  }

  get id() {
    return this.url.split("/").pop();
  }

  /** Bring the whole file to the service. Never throws but when it is stopped. */
  async run(signal) {
    this.#set({ state: "sending", note: "", problem: null });
    try {
      await this.#send(signal);
      this.#set({ state: "done", note: "" });
    } catch (problem) {
      if (signal.aborted) this.#set({ state: "chosen", note: "" });
      else this.#set({ state: "failed", problem, note: "" });
      if (problem.status === 401) window.dispatchEvent(new Event("signed-out"));
    }
  }

  async #send(signal) {
    await this.#patiently(() => this.#begin(signal), signal);
    let tries = 0;
    while (this.sentBytes < this.file.size) {
      try {
        await this.#sendPiece(signal);
        tries = 0;
      } catch (problem) {
        const again = problem instanceof Problem && (problem.transient || problem.status === 409);
        if (signal.aborted || !again || tries >= MOST_TRIES) throw problem;
        this.#waiting(waitS(problem, tries));
        await pause(waitS(problem, tries), signal);
        tries += 1;
        await this.#patiently(() => this.#askOffset(signal), signal);
      }
    }
  }

  #patiently(task, signal) {
    return patiently(task, signal, MOST_TRIES, (seconds) => this.#waiting(seconds));
  }

  #waiting(seconds) {
    this.#set({ note: `Connection interrupted; going on in ${Math.ceil(seconds)} s` });
  }

  /** Go on with what an earlier visit began, or announce the file. */
  async #begin(signal) {
    this.url = this.url || recall(this.#mark);
    if (this.url) {
      try {
        await this.#askOffset(signal);
        return;
      } catch (problem) {
        if (problem.status !== 404) throw problem;
        this.forget();
      }
    }
    const headers = {
      ...TUS,
      "Upload-Length": String(this.file.size),
      "Upload-Metadata": `filename ${base64(this.name)}`,
    };
    const answer = await call(ADDRESS, { method: "POST", headers, signal });
    this.url = answer.headers.get("Location");
    remember(this.#mark, this.url);
    this.#set({ sentBytes: 0 });
  }

  async #askOffset(signal) {
    const answer = await call(this.url, { method: "HEAD", headers: TUS, signal, cache: "no-store" });
    this.#set({ sentBytes: Number(answer.headers.get("Upload-Offset")), note: "" });
  }

  /** Send one piece; XMLHttpRequest, because fetch does not tell how much has been sent. */
  #sendPiece(signal) {
    const begin = this.sentBytes;
    const piece = this.file.slice(begin, begin + PIECE_BYTES);
    return new Promise((resolve, reject) => {
      const request = new XMLHttpRequest();
      const stop = () => request.abort();
      signal.addEventListener("abort", stop, { once: true });
      request.open("PATCH", this.url);
      const headers = { ...TUS, "Upload-Offset": begin, "Content-Type": "application/offset+octet-stream" };
      for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
      request.upload.onprogress = (event) => this.#set({ sentBytes: begin + event.loaded, note: "" });
      request.onabort = () => reject(new DOMException("stopped", "AbortError"));
      request.onerror = () => reject(unreachable());
      request.onload = () => {
        if (request.status === 204) {
          this.#set({ sentBytes: Number(request.getResponseHeader("Upload-Offset")) });
          resolve();
          return;
        }
        reject(problemOf(request.status, (name) => request.getResponseHeader(name), request.responseText));
      };
      request.onloadend = () => signal.removeEventListener("abort", stop);
      request.send(piece);
    });
  }

  /** Forget where the file was sent to, here only. */
  forget() {
    remember(this.#mark, null);
    this.url = "";
  }

  /** Remove it from the service; jobs that were given it go on. */
  async remove() {
    const url = this.url;
    this.forget();
    const task = () => call(url, { method: "DELETE", headers: TUS });
    if (url) await patiently(task, null, MOST_TRIES).catch(() => {}); // else its time runs out
  }

  get #mark() {
    return `${MARK}${this.name} ${this.file.size} ${this.file.lastModified}`;
  }

  #set(changes) {
    Object.assign(this, changes);
    this.onChange(this);
  }
}

/** Send several files, a few at once. */
export async function sendAll(uploads, signal) {
  const waiting = uploads.filter((upload) => upload.state !== "done");
  const sendNext = async () => {
    while (waiting.length > 0 && !signal.aborted) await waiting.shift().run(signal);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, sendNext));
}

/** Remove several files from the service, one after the other. */
export async function removeAll(uploads) {
  for (const upload of uploads) await upload.remove();
}

/** Forget where any file was sent to, in this browser. */
export function forgetAll() {
  try {
    const marks = Object.keys(localStorage).filter((mark) => mark.startsWith(MARK));
    for (const mark of marks) localStorage.removeItem(mark);
  } catch {
    // storage is switched off
  }
}

function base64(text) {
  return btoa(String.fromCharCode(...new TextEncoder().encode(text)));
}

function recall(mark) {
  try {
    return localStorage.getItem(mark) ?? "";
  } catch {
    return ""; // storage is switched off: the upload begins anew after a reload
  }
}

function remember(mark, url) {
  try {
    if (url) localStorage.setItem(mark, url);
    else localStorage.removeItem(mark);
  } catch {
    // as above
  }
}
