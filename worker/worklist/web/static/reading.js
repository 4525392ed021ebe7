// The keyboard of the list and of a study: j, k, c, r, a, d, u, /. What a key does a button does too.

const csrf = document.body.dataset.csrf;
const said = document.getElementById("said");
const verdict = document.getElementById("verdict");
// The study that was read last, also on another page of this window: u takes it back.
const LAST = "read";
const TOO_LATE = 30_000; // ms; the server says so in any case

const typing = () => document.activeElement?.matches("input:not([type=checkbox]), select, textarea");
const row = () => document.activeElement?.closest("tr[data-key]");
const study = () => verdict?.dataset.study ?? row()?.dataset.key;

function say(words) {
  said.textContent = words;
  said.classList.toggle("shown", words !== "");
}

async function tell(uid, act, values = {}) {
  try {
    const answer = await fetch(`/studies/${uid}/${act}`, {
      method: "POST",
      headers: { "X-CSRF": csrf },
      body: new URLSearchParams(values),
      redirect: "manual",
    });
    if (answer.status === 204) return true;
    if (answer.status === 401) location.assign(`/sign-in?next=${encodeURIComponent(location.pathname)}`);
    say(answer.status === 409 ? await answer.text() : "this was not taken: load the page again");
  } catch {
    say("no connection to hilum: nothing was changed");
  }
  return false;
}

async function act(key) {
  const uid = key === "u" && !verdict ? (JSON.parse(sessionStorage.getItem(LAST))?.uid ?? study()) : study();
  if (!uid) return;
  const revision = document.querySelector("input[name=revision]")?.value ?? row()?.dataset.revision;
  const all = [...document.querySelectorAll("tr[data-key]")];
  const at = all.indexOf(row());
  const next = (all[at + 1] ?? all[at - 1])?.dataset.key; // the list may be another one when the answer comes
  if (key === "C") {
    if (await tell(uid, "claim", { take_over: "true" })) say("taken over by you");
  } else if (key === "c") {
    const mine = row()?.hasAttribute("data-mine") ?? document.querySelector("[data-claimed=mine]") !== null;
    if (await tell(uid, mine ? "release" : "claim")) say(mine ? "given up" : "claimed by you");
  } else if (key === "r" || key === "a") {
    if (!(await tell(uid, "read", key === "a" ? { judgement: "agree", revision } : { revision }))) return;
    sessionStorage.setItem(LAST, JSON.stringify({ uid, at: Date.now() }));
    if (verdict) return location.assign("/");
    document.querySelector(`tr[data-key="${next}"] a`)?.focus({ preventScroll: true });
    say("read; u takes it back");
  } else if (key === "u" && (await tell(uid, "undo"))) {
    sessionStorage.removeItem(LAST);
    say("taken back: it is on the list again");
  }
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && typing()) return document.activeElement.blur();
  if (typing()) return;
  if (event.key === "/") {
    const search = document.querySelector(".filter input[type=search]");
    if (search) event.preventDefault(), search.focus(), search.select();
  } else if (event.key === "d" && verdict) {
    location.assign(`/studies/${study()}/disagree`);
  } else if ("cCrau".includes(event.key) && event.key.length === 1 && !event.repeat) {
    if (event.key === "a" && !verdict) return;
    event.preventDefault();
    act(event.key);
  }
});

if (!verdict && Date.now() - (JSON.parse(sessionStorage.getItem(LAST))?.at ?? 0) < TOO_LATE) say("read; u takes it back");
