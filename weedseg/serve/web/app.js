// Start: who is signed in, and which view the address asks for.
import { SESSION, call, fetchJson, problemBox } from "./api.js";
import { announce, button, el, heading, show } from "./dom.js";
import { showHistory } from "./history.js";
import { forgetPhotos, showHome } from "./home.js";
import { showJob } from "./job.js";
import { showSignIn } from "./sign_in.js";

const VIEWS = [
  [/^#\/history$/, (signal) => showHistory(signal)],
  [/^#\/jobs\/([\w-]+)$/, (signal, id) => showJob(signal, id)],
  [/^(#\/?)?$/, () => showHome()],
];
let leaving = new AbortController();
let here = null;
let owner = "";

function route() {
  const address = location.hash;
  if (address && !address.startsWith("#/")) return; // a place on the page
  if (here === address) return;
  here = address;
  leaving.abort();
  leaving = new AbortController();
  const [pattern, view] = VIEWS.find(([known]) => known.test(address)) ?? [null, missing];
  const [, ...parts] = pattern ? pattern.exec(address) : [];
  for (const link of document.querySelectorAll("#nav a")) {
    const current = link.getAttribute("href") === (address || "#/");
    if (current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  view(leaving.signal, ...parts);
}

function missing() {
  show(
    "Not found", heading("There is no such page"),
    el("a", { class: "button main", href: "#/" }, "To the start"),
  );
}

function enter(session) {
  if (owner && owner !== session.owner) forgetPhotos(); // somebody else sits here now
  owner = session.owner;
  document.getElementById("nav").hidden = false;
  const who = document.getElementById("who");
  who.hidden = !session.key_needed;
  who.replaceChildren(
    el("span", { class: "quiet" }, "Signed in as ", el("strong", {}, session.owner)),
    button("Sign out", signOut),
  );
  here = null;
  route();
}

function leave() {
  leaving.abort();
  document.getElementById("nav").hidden = true;
  document.getElementById("who").hidden = true;
  showSignIn(enter);
}

async function signOut() {
  try {
    await call(SESSION, { method: "DELETE" });
  } catch (error) {
    document.getElementById("main").prepend(problemBox(error));
    return;
  }
  forgetPhotos();
  leave();
  announce("Signed out.");
}

async function start() {
  try {
    enter(await fetchJson(SESSION, { cache: "no-store" }));
  } catch (error) {
    if (error.status === 401) leave();
    else show("weedseg", heading("weedseg"), problemBox(error, start));
  }
}

window.addEventListener("signed-out", leave);
window.addEventListener("hashchange", route);
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  document.getElementById("main").focus();
});
start();
