// Signing in with a key: the service keeps it out of reach of scripts, in a cookie.
import { Problem, SESSION, call, problemBox } from "./api.js";
import { el, heading, show } from "./dom.js";

const PLAIN = /^[!-~]+$/; // what a header can carry

export function showSignIn(onSignedIn) {
  const problem = el("div");
  const key = el("input", {
    id: "key", type: "password", autocomplete: "current-password", required: true, spellcheck: "false",
    "aria-describedby": "key-help",
  });
  const submit = el("button", { type: "submit", class: "button main" }, "Sign in");
  const send = async (event) => {
    event.preventDefault();
    submit.disabled = true;
    problem.replaceChildren();
    try {
      const text = key.value.trim();
      if (!PLAIN.test(text)) throw new Problem(401, "Not signed in", "");
      const answer = await call(SESSION, { method: "POST", headers: { "X-API-Key": text } });
      onSignedIn(await answer.json());
    } catch (error) {
      problem.replaceChildren(problemBox(explain(error)));
      submit.disabled = false;
      key.focus();
      key.select();
    }
  };
  show("Sign in", el(
    "section", { class: "card narrow" },
    heading("Sign in"),
    el("p", {}, "This service asks who you are before it takes photos."),
    problem,
    el(
      "form", { on: { submit: send } },
      el("input", { type: "text", autocomplete: "username", value: "weedseg", hidden: true }), // for password managers
      el("label", { for: "key" }, "API key"),
      key,
      el("p", { class: "hint", id: "key-help" },
        "You get it from the person who runs this service. It is kept for this visit only; signing out ends it."),
      submit,
    ),
  ));
}

function explain(error) {
  if (error instanceof Problem && error.status === 401) {
    return new Problem(400, "Not signed in", "this key is wrong, revoked or expired; check that you copied all of it");
  }
  return error;
}
