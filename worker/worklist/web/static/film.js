// The film viewer: window and level, zoom, pan, invert, by mouse, touch and keyboard; in research mode a map over it.
// Only what is to be seen is drawn, at about the screen's resolution, whatever the size of the film.

import { Refused, greys, load, warmth } from "./film-pixels.js";

const STEP = 0.025; // of the first window's width, for one press of a key
const DRAG = 500; // CSS pixels of dragging that are worth the first window's width
const NOTCH = 1.0015; // zoom for one unit of a wheel
const CLOSEST = 16; // screen pixels for one of the film's
const SLOW = 24; // ms; what takes longer to draw is drawn coarsely while it moves
const SETTLED = 150; // ms without a move
const SPOKEN = 700; // ms without a change before it is told to a screen reader
const KEPT = 4; // films in memory; of the largest each has 70 MB
const BAR = [50, 10]; // mm, lengths of the scale

const round = (number) => String(Math.abs(number) < 10 ? Number(number.toPrecision(3)) : Math.round(number));

export class Viewer {
  constructor(root) {
    this.root = root;
    this.stage = root.querySelector(".film-stage");
    this.canvas = root.querySelector("canvas");
    this.context = this.canvas.getContext("2d", { alpha: false });
    this.painting = document.createElement("canvas"); // the visible part at the film's own pixels
    this.films = new Map(); // by SOP Instance UID, the one looked at last at the end
    this.tool = "window";
    this.pointers = new Map();
    this.listen();
    this.open(this.tabs.find((tab) => "first" in tab.dataset) ?? this.tabs[0]);
    if (document.activeElement === document.body) this.canvas.focus({ preventScroll: true });
  }

  get tabs() {
    return [...this.root.querySelectorAll("[data-film]")];
  }

  // A fresh page has come: the viewer stays as it is, only its list of films is the fresh one.
  replace(fresh) {
    this.root.querySelector(".film-tabs").replaceChildren(...fresh.querySelector(".film-tabs").childNodes);
    fresh.replaceWith(this.root);
    if (this.focused) this.canvas.focus({ preventScroll: true });
    if (this.shown) this.mark();
    else this.open(this.tabs[0]);
  }

  // films

  open(tab) {
    const uid = tab?.dataset.film;
    const known = this.films.get(uid);
    if (!uid || (uid === this.shown?.uid && !known.fault)) return;
    this.shown = known ?? { uid, film: null, view: null, fault: "", map: null, finding: "" };
    this.films.delete(uid);
    this.films.set(uid, this.shown); // the latest
    for (const old of [...this.films.keys()].slice(0, -KEPT)) this.films.delete(old);
    this.canvas.dataset.drawn = "nothing"; // of this film yet
    this.mark();
    if (!known || known.fault) this.fetch(this.shown, tab.dataset.pixels);
    this.askForMap();
    this.changed();
  }

  async fetch(shown, url) {
    shown.fault = "";
    try {
      await load(url, (film) => {
        if (!shown.film) {
          shown.film = film;
          shown.view = { ...first(film), fit: true, scale: 1, x: film.columns / 2, y: film.rows / 2 };
        }
        if (shown === this.shown) this.changed();
      });
    } catch (error) {
      shown.fault = error instanceof Refused ? error.message : "no connection to hilum"; // asked for anew by its number
      if (shown === this.shown) this.changed();
    }
  }

  mark() {
    for (const tab of this.tabs) tab.setAttribute("aria-pressed", tab.dataset.film === this.shown.uid);
    for (const button of this.root.querySelectorAll("button[data-tool]")) {
      button.setAttribute("aria-pressed", button.dataset.tool === this.tool);
    }
    this.canvas.dataset.tool = this.panning ? "pan" : this.tool;
  }

  // the view

  get ratio() {
    return window.devicePixelRatio || 1;
  }

  fitting() {
    const { film } = this.shown;
    return Math.min(this.canvas.clientWidth / film.columns, this.canvas.clientHeight / (film.rows * film.aspect));
  }

  // CSS pixels of the canvas -> place on the film.
  place(x, y) {
    const { film, view } = this.shown;
    return {
      x: view.x + (x - this.canvas.clientWidth / 2) / view.scale,
      y: view.y + (y - this.canvas.clientHeight / 2) / (view.scale * film.aspect),
    };
  }

  zoom(factor, x = this.canvas.clientWidth / 2, y = this.canvas.clientHeight / 2) {
    const { film, view } = this.shown;
    const under = this.place(x, y);
    const fit = this.fitting();
    view.scale = Math.min(Math.max(view.scale * factor, fit / 2), Math.max(CLOSEST / this.ratio, fit));
    view.fit = false;
    const now = this.place(x, y);
    this.move((now.x - under.x) * view.scale, (now.y - under.y) * view.scale * film.aspect);
  }

  // By CSS pixels; the middle of the canvas stays on the film.
  move(x, y) {
    const { film, view } = this.shown;
    view.x = Math.min(Math.max(view.x - x / view.scale, 0), film.columns);
    view.y = Math.min(Math.max(view.y - y / (view.scale * film.aspect), 0), film.rows);
    view.fit = false;
    this.changed();
  }

  fit() {
    const { film, view } = this.shown;
    Object.assign(view, { fit: true, x: film.columns / 2, y: film.rows / 2 });
    this.changed();
  }

  // By shares of the first window's width: `wider` of contrast, and `brighter` whatever the polarity.
  window(wider, brighter) {
    const { film, view } = this.shown;
    const least = Math.abs(film.slope);
    view.width = Math.max(view.width + wider * film.width, film.function === "LINEAR" ? Math.max(least, 1) : least);
    view.center -= (view.inverse ? -1 : 1) * brighter * film.width;
    this.changed();
  }

  // drawing

  changed() {
    this.later ??= requestAnimationFrame(() => {
      this.later = null;
      this.draw();
      this.say();
    });
    clearTimeout(this.settling);
    this.settling = setTimeout(() => this.draw(true), SETTLED);
    clearTimeout(this.speaking);
    this.speaking = setTimeout(() => this.speak(), SPOKEN);
  }

  draw(settled = false) {
    const began = performance.now();
    const { canvas, context, shown } = this;
    const size = { width: Math.round(canvas.clientWidth * this.ratio), height: Math.round(canvas.clientHeight * this.ratio) };
    if (canvas.width !== size.width || canvas.height !== size.height) Object.assign(canvas, size);
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    if (!shown?.film || !canvas.width || !canvas.height) return;
    const { film, view } = shown;
    if (view.fit) view.scale = this.fitting();
    const level = this.level(settled ? 0 : this.slow ? 1 : 0);
    if (level) this.paint(level, settled);
    if (shown.map && this.opacity > 0) this.paintMap(shown.map);
    if (film.spacing) this.paintScale();
    this.took = performance.now() - began;
    if (!settled) this.slow = this.took > SLOW;
    canvas.dataset.drawn = shown.film.levels.length ? "whole" : "preview";
  }

  // The smallest picture of the film that has a pixel for every pixel of the screen, or one that is `coarser`.
  level(coarser) {
    const { film, view } = this.shown;
    if (!film.levels.length) {
      return film.small?.full ? { ...film.small, each: film.columns / film.small.columns } : { ...film.whole, each: 1 };
    }
    const wanted = Math.floor(-Math.log2(view.scale * this.ratio)) + coarser;
    const n = Math.min(Math.max(wanted, 0), film.levels.length - 1);
    return { ...film.levels[n], each: 2 ** n };
  }

  // A place on the film -> device pixels of the canvas.
  onScreen(x, y) {
    const { film, view } = this.shown;
    const scale = view.scale * this.ratio;
    return [(x - view.x) * scale + this.canvas.width / 2, (y - view.y) * scale * film.aspect + this.canvas.height / 2];
  }

  paint(level, settled) {
    const { film, view } = this.shown;
    const { columns, rows, values, each } = level;
    const a = this.place(0, 0);
    const b = this.place(this.canvas.clientWidth, this.canvas.clientHeight);
    const left = Math.max(0, Math.floor(a.x / each));
    const top = Math.max(0, Math.floor(a.y / each));
    const width = Math.min(columns, Math.ceil(b.x / each)) - left;
    const height = Math.min(rows, Math.ceil(b.y / each)) - top;
    if (width <= 0 || height <= 0) return;
    if (this.image?.width !== width || this.image?.height !== height) {
      this.image = new ImageData(width, height);
      Object.assign(this.painting, { width, height });
    }
    const table = this.table(film, view);
    const pixels = new Uint32Array(this.image.data.buffer);
    for (let row = 0, to = 0; row < height; row++) {
      let from = (top + row) * columns + left;
      for (const end = to + width; to < end; ) pixels[to++] = table[values[from++]];
    }
    this.painting.getContext("2d").putImageData(this.image, 0, 0);
    const [x, y] = this.onScreen(left * each, top * each);
    const [right, bottom] = this.onScreen((left + width) * each, (top + height) * each);
    this.context.imageSmoothingQuality = settled ? "high" : "low";
    this.context.drawImage(this.painting, x, y, right - x, bottom - y);
  }

  table(film, view) {
    const made = this.greys;
    const same = ["center", "width", "inverse"].every((key) => made?.of[key] === view[key]);
    if (made?.film === film && same) return made.table;
    this.greys = { film, of: { ...view }, table: greys(film, view, made?.table) };
    return this.greys.table;
  }

  paintMap(map) {
    const [x, y] = this.onScreen(0, 0);
    const [right, bottom] = this.onScreen(this.shown.film.columns, this.shown.film.rows);
    this.context.globalAlpha = this.opacity;
    this.context.drawImage(map, x, y, right - x, bottom - y);
    this.context.globalAlpha = 1;
  }

  // Centimetres at the right edge, as far as the header tells how large a pixel is.
  paintScale() {
    const { context, canvas, ratio } = this;
    const { film, view } = this.shown;
    const each = (view.scale * film.aspect * ratio) / film.spacing[0]; // device pixels for one mm
    const length = BAR.find((mm) => mm * each < 0.6 * canvas.height);
    if (!length) return;
    const x = canvas.width - 14 * ratio;
    const top = (canvas.height - length * each) / 2;
    context.strokeStyle = "#aab4be";
    context.fillStyle = "#d3dae2";
    context.lineWidth = ratio;
    context.beginPath();
    context.moveTo(x, top);
    context.lineTo(x, top + length * each);
    for (let mm = 0; mm <= length; mm += length / 5) {
      context.moveTo(x - (mm % length ? 4 : 8) * ratio, top + mm * each);
      context.lineTo(x, top + mm * each);
    }
    context.stroke();
    context.font = `${11 * ratio}px system-ui, sans-serif`;
    context.textAlign = "right";
    context.fillText(`${length / 10} cm`, x, top - 6 * ratio);
    if (film.spacing_at_detector) context.fillText("at detector", x, top + length * each + 15 * ratio);
  }

  // words

  say() {
    const { film, view, fault } = this.shown ?? { fault: "no film to show" };
    const whole = Boolean(film?.levels.length);
    this.show(".film-message", fault || (film ? "" : "the film is coming"));
    const bar = this.root.querySelector(".film-progress");
    bar.hidden = Boolean(fault) || whole || !this.shown;
    bar.value = film?.progress ?? 0;
    this.show(".film-window", film ? this.words() : "");
    const at = this.tabs.findIndex((tab) => tab.dataset.film === this.shown?.uid) + 1;
    const name = [`film ${at} of ${this.tabs.length}`, film?.view].filter(Boolean).join(", ");
    this.show(".film-name", film ? name : "");
    const size = film ? `, ${film.columns} by ${film.rows} pixels` : "";
    this.canvas.setAttribute("aria-label", `${name}${size}`);
    this.root.querySelector("[data-do=invert]").setAttribute("aria-pressed", Boolean(view && view.inverse !== film.inverse));
  }

  words() {
    const { view } = this.shown;
    const parts = [`window ${round(view.width)}`, `level ${round(view.center)}`];
    parts.push(`zoom ${Math.round(100 * view.scale * this.ratio)} %`);
    if (view.inverse !== this.shown.film.inverse) parts.push("inverted");
    return parts.join("  ");
  }

  speak() {
    const { film, fault } = this.shown ?? {};
    this.show(".film-spoken", fault || (film ? this.words() : ""));
  }

  show(where, words) {
    const element = this.root.querySelector(where);
    if (element && element.textContent !== words) element.textContent = words;
  }

  readout(event) {
    const { film } = this.shown ?? {};
    let words = "";
    if (event && film?.levels.length) {
      const at = this.place(event.offsetX, event.offsetY);
      const [column, row] = [Math.floor(at.x), Math.floor(at.y)];
      const inside = column >= 0 && row >= 0 && column < film.columns && row < film.rows;
      if (inside) words = `${round(film.value(row, column))} at ${column}, ${row}`;
    }
    this.show(".film-value", words);
  }

  // hands

  listen() {
    const { canvas, root } = this;
    new ResizeObserver(() => this.changed()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.down(event));
    canvas.addEventListener("pointermove", (event) => this.drag(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.up(event));
    canvas.addEventListener("pointerleave", () => this.readout(null));
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("auxclick", (event) => event.preventDefault());
    canvas.addEventListener("dblclick", () => this.shown?.film && this.fit());
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    root.addEventListener("keydown", (event) => this.key(event));
    root.addEventListener("keyup", (event) => event.key === " " && this.pan(false));
    root.addEventListener("click", (event) => this.click(event.target.closest("button")));
    canvas.addEventListener("blur", () => this.pan(false)); // the key may be let go elsewhere
    document.addEventListener("focusin", (event) => (this.focused = event.target === canvas));
    document.addEventListener("fullscreenchange", () => this.changed());
    this.root.querySelector("[data-do=full]").hidden = !document.fullscreenEnabled;
    this.root.querySelector("[data-map]")?.addEventListener("change", () => this.askForMap());
    this.root.querySelector("[data-opacity]")?.addEventListener("input", () => this.changed());
  }

  down(event) {
    this.canvas.focus({ preventScroll: true });
    if (!this.shown?.film) return;
    if (event.button === 1) event.preventDefault(); // no automatic scrolling
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, { x: event.offsetX, y: event.offsetY });
    this.hand = event.button > 0 || this.panning ? "pan" : this.tool;
  }

  drag(event) {
    if (event.pointerType === "mouse") this.readout(event);
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.shown?.film) return;
    const now = { x: event.offsetX, y: event.offsetY };
    const other = [...this.pointers].find(([id]) => id !== event.pointerId)?.[1];
    this.pointers.set(event.pointerId, now);
    const [x, y] = [now.x - before.x, now.y - before.y];
    if (other) {
      const apart = (point) => Math.hypot(point.x - other.x, point.y - other.y) || 1;
      this.move(x / 2, y / 2);
      this.zoom(apart(now) / apart(before), (now.x + other.x) / 2, (now.y + other.y) / 2);
    } else if (this.hand === "pan") this.move(x, y);
    else this.window(x / DRAG, -y / DRAG);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (this.pointers.size) this.hand = "pan"; // one of two fingers is lifted: the other moves no window
  }

  wheel(event) {
    event.preventDefault();
    if (!this.shown?.film) return;
    const unit = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? 1 : 33;
    this.zoom(NOTCH ** -Math.max(-300, Math.min(300, event.deltaY * unit)), event.offsetX, event.offsetY);
  }

  click(button) {
    if (!button) return;
    if (button.dataset.film) this.open(button);
    else if (button.dataset.tool) this.take(button.dataset.tool);
    else if (button.dataset.do) this.act(button.dataset.do);
  }

  take(tool) {
    this.tool = tool;
    this.mark();
  }

  pan(on) {
    this.panning = on;
    this.mark();
  }

  act(what) {
    if (what === "help") this.help();
    else if (what === "full") this.fullScreen();
    else if (this.shown?.film) this.deeds[what]();
  }

  deeds = {
    invert: () => {
      this.shown.view.inverse = !this.shown.view.inverse;
      this.changed();
    },
    fit: () => this.fit(),
    actual: () => this.zoom(1 / this.ratio / this.shown.view.scale),
    first: () => {
      Object.assign(this.shown.view, first(this.shown.film));
      this.changed();
    },
  };

  help() {
    const keys = this.root.querySelector(".film-keys");
    keys.hidden = !keys.hidden;
    this.root.querySelector("[data-do=help]").setAttribute("aria-expanded", !keys.hidden);
  }

  fullScreen() {
    if (document.fullscreenElement) document.exitFullscreen();
    else this.root.requestFullscreen?.().catch(() => {}); // the browser may not want to
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select, input")) return;
    const onButton = event.target.matches("button");
    if (onButton && [" ", "Enter"].includes(event.key)) return;
    if (event.key === "Escape") this.canvas.blur(); // out of the film, and then out of the page
    const act = this.meant(event);
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  // What a key is for; nothing, where it is not for the film.
  meant(event) {
    const { key, shiftKey } = event;
    const number = Number(key);
    if (number >= 1 && number <= this.tabs.length) return () => this.open(this.tabs[number - 1]);
    if (key === "?") return () => this.help();
    if (!this.shown?.film) return null;
    const arrow = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[key];
    if (arrow && (shiftKey || this.tool === "pan")) return () => this.move(-40 * arrow[0], 40 * arrow[1]);
    if (arrow) return () => this.window(STEP * arrow[0], STEP * arrow[1]);
    return {
      w: () => this.window(-STEP, 0),
      W: () => this.window(STEP, 0),
      l: () => this.window(0, -STEP),
      L: () => this.window(0, STEP),
      "+": () => this.zoom(1.25),
      "=": () => this.zoom(1.25),
      "-": () => this.zoom(0.8),
      0: () => this.fit(),
      z: () => this.act("actual"),
      i: () => this.act("invert"),
      x: () => this.act("first"),
      f: () => this.fullScreen(),
      p: () => this.take(this.tool === "pan" ? "window" : "pan"),
      " ": () => this.pan(true),
    }[key];
  }

  // research mode

  get opacity() {
    return Number(this.root.querySelector("[data-opacity]")?.value ?? 0) / 100;
  }

  async askForMap() {
    const finding = this.root.querySelector("[data-map]")?.value ?? "";
    const { shown } = this;
    if (!shown || finding === shown.finding) return;
    Object.assign(shown, { finding, map: null });
    this.changed();
    this.show(".film-map-said", "");
    if (!finding) return;
    const tab = this.tabs.find((one) => one.dataset.film === shown.uid);
    const answer = await fetch(`${tab.dataset.activation}?${new URLSearchParams({ finding })}`).catch(() => null);
    const said = await answer?.json().catch(() => null);
    if (shown.finding !== finding) return; // another was asked for meanwhile
    if (!answer?.ok || !said?.values) {
      shown.finding = "";
      this.show(".film-map-said", said?.error ?? "no connection to hilum");
      return;
    }
    const most = Math.max(...said.values.flat());
    shown.map = most > 0 ? warmth(said.values) : null;
    const grid = `${said.values.length} × ${said.values[0].length} cells`;
    this.show(".film-map-said", most > 0 ? `${grid}, strongest ${round(most)}` : `${grid}, nothing speaks for it`);
    this.changed();
  }
}

const first = (film) => ({ center: film.center, width: film.width, inverse: film.inverse });

export const viewers = [];

function mount() {
  const root = document.getElementById("film");
  const [viewer] = viewers;
  if (root && !viewer) viewers.push(new Viewer(root));
  else if (root && viewer.root !== root) viewer.replace(root);
}

mount();
new MutationObserver(mount).observe(document.body, { childList: true, subtree: true }); // the page swaps its live part
