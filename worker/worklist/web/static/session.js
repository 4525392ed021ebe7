// A page that nobody touches is left for the lock of its own accord: who comes by must not read what stands there.

const EVERY = 30_000; // ms between two looks; a page that is not seen is not asked for
const here = () => document.querySelector(".who [name=next]").value;

async function look() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/still-in", { headers: { "X-Again": "1" }, redirect: "manual" });
    if (answer.status === 401) location.replace(`/locked?next=${encodeURIComponent(here())}`);
  } catch {
    // no connection: what is live says so
  }
}

setInterval(look, EVERY);
document.addEventListener("visibilitychange", look);
