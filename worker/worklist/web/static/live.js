// A live page: the server says that something changed, the page fetches itself anew and swaps its changing part.
// Markup is never made out of text here; the browser parses the server's answer (Trusted Types are enforced).

const MINUTE = 60_000;
const PAUSE = 500; // ms between two fetches, however fast the news
const AIM = 400; // ms after a movement in which a press is likely
const MOST_SPARED = 4; // fetches in a row
const SILENCE = 30_000; // ms; the server says something every 10 s, so this is a connection that died unnoticed
const link = document.getElementById("link");
let ahead = 0; // how far this machine's clock is ahead of the server's, ms
let source = null;
let heard = 0; // when the server last said anything
let fetching = false;
let wanted = false;
let fetched = Date.now(); // notices come with time too, though nothing changes: hilum is behind
let held = false; // a pointer is down: a list that moves now would put another study under the click

let aimed = 0; // when the pointer was last moved over the list: somebody is about to press
let spared = 0; // fetches since then whose rows were not moved under it

const live = () => document.getElementById("live");
const rows = () => [...document.querySelectorAll("tr[data-key]")];

function say(state, words) {
  if (link.dataset.state === state) return;
  link.dataset.state = state;
  link.lastElementChild.textContent = words;
}

// The same words as the server's `waited`.
function waited(ms) {
  const minutes = Math.max(0, Math.floor(ms / MINUTE));
  if (minutes < 1) return "< 1 min";
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${String(minutes % 60).padStart(2, "0")}`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function tick() {
  const now = Date.now() - ahead;
  for (const time of document.querySelectorAll("time[data-waiting]")) {
    const words = waited(now - Date.parse(time.dateTime));
    if (time.textContent !== words) time.textContent = words;
  }
}

function settle() {
  ahead = Date.now() - Date.parse(live().dataset.now);
  for (const time of document.querySelectorAll("time[data-clock]")) {
    const at = new Date(time.dateTime);
    const today = at.toDateString() === new Date().toDateString();
    time.textContent = today ? at.toLocaleTimeString([], { hour12: false }) : at.toLocaleString([], { hour12: false });
    time.title = time.dateTime;
  }
  document.title = live().dataset.title;
  tick();
}

function swap(fresh) {
  const known = new Map(rows().map((row) => [row.dataset.key, row.dataset.revision]));
  const focused = document.activeElement?.closest("tr[data-key]")?.dataset.key;
  const id = live().contains(document.activeElement) ? document.activeElement.id : "";
  const pressed = live().contains(document.activeElement) ? document.activeElement.id : "";
  live().replaceWith(fresh);
  if (pressed) document.getElementById(pressed)?.focus({ preventScroll: true });
  if (id) document.getElementById(id)?.focus({ preventScroll: true });
  for (const row of rows()) {
    if (known.get(row.dataset.key) !== row.dataset.revision) row.classList.add("fresh");
    if (row.dataset.key === focused) row.querySelector("a").focus({ preventScroll: true });
  }
  settle();
}

function refresh() {
  if (fetching) {
    wanted = true;
    return;
  }
  fetching = true;
  wanted = false;
  fetched = Date.now();
  const request = new XMLHttpRequest(); // it parses HTML itself, so that no string becomes markup
  request.open("GET", location.pathname + location.search);
  request.setRequestHeader("X-Again", "1"); // the same page once more: nobody looked anew
  request.responseType = "document";
  request.timeout = 10_000;
  request.onloadend = () => {
    if (request.status === 401) return location.reload(); // locked, or over
    const fresh = request.status === 200 ? request.response?.getElementById("live") : null;
    const aims = Date.now() - aimed < AIM && spared < MOST_SPARED;
    spared = aims ? spared + 1 : 0;
    if (fresh && !held && !aims) swap(document.adoptNode(fresh));
    setTimeout(() => {
      fetching = false;
      if (wanted || held || aims || !fresh) refresh();
    }, fresh ? PAUSE : 4 * PAUSE);
  };
  request.send();
}

// A hidden page lets its connection go: browsers allow only six to one host, and nobody is looking.
function listen() {
  source?.close();
  source = null;
  if (document.hidden) return;
  heard = Date.now();
  source = new EventSource(live().dataset.events);
  source.addEventListener("token", (event) => {
    heard = Date.now();
    say("live", "live");
    if (JSON.parse(event.data) !== live().dataset.token) refresh();
  });
  source.addEventListener("here", () => (heard = Date.now()));
  source.addEventListener("away", () => {
    heard = Date.now();
    say("away", `the database does not answer: list as of ${clock()}`);
  });
  source.onerror = () => {
    say("lost", `no connection to hilum: list as of ${clock()}`);
    if (source.readyState === EventSource.CLOSED) setTimeout(listen, 5000); // refused; otherwise it tries by itself
  };
}

function watch() {
  tick();
  if (!document.hidden && Date.now() - fetched > MINUTE) refresh();
  if (source && Date.now() - heard > SILENCE) {
    say("lost", `no connection to hilum: list as of ${clock()}`);
    listen();
  }
}

const clock = () => new Date().toLocaleTimeString([], { hour12: false });

document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && location.pathname !== "/" && document.activeElement === document.body) location.assign("/");
  const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
  if (!step || document.activeElement?.matches("input, select, textarea, canvas, [role=img]") || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = rows();
  const at = all.indexOf(document.activeElement?.closest("tr[data-key]"));
  const next = all[at < 0 ? (step > 0 ? 0 : all.length - 1) : at + step];
  if (!next) return;
  event.preventDefault();
  next.querySelector("a").focus();
  next.scrollIntoView({ block: "nearest" });
});

document.addEventListener("pointermove", (event) => {
  if (event.target.closest?.("tr[data-key]")) aimed = Date.now();
});
document.addEventListener("pointerdown", () => (held = true));
for (const end of ["pointerup", "pointercancel", "dragend"]) document.addEventListener(end, () => (held = false));
document.addEventListener("visibilitychange", listen);
setInterval(watch, 5000);
settle();
listen();
