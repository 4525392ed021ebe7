// A film's pixels in the browser: unpacked as they come in (`film_stream.py` says how they are packed), made smaller for
// the screen, and turned into greys. Values are kept as unsigned 16 bits, signed ones shifted up by 32768.

// Fetches a film. `seen` is called with it when its preview is there, when more has come, and when all of it has.
export async function load(url, seen) {
  const answer = await fetch(url);
  if (!answer.ok) throw new Refused(await words(answer));
  const film = new Film(JSON.parse(answer.headers.get("X-Film")));
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (film.take(value)) seen(film);
  }
  if (!film.complete) throw new Refused("the film did not come in whole");
  film.levels = pyramid(film.whole);
  seen(film);
  return film;
}

// What the server, or the way to it, says against a request; fit to be shown.
export class Refused extends Error {}

async function words(answer) {
  if (answer.status === 401) return "the session is over: load the page again to sign in";
  const said = await answer.json().catch(() => ({}));
  return said.error ?? `the server answers ${answer.status}`;
}

class Film {
  constructor(described) {
    Object.assign(this, described);
    this.shift = this.kind === "int16" ? 0x8000 : 0;
    const bytes = this.kind === "uint8" ? 1 : 2;
    const [rows, columns] = this.preview;
    this.whole = new Grid(this.rows, this.columns, bytes, this.shift, this.band);
    this.small = rows ? new Grid(rows, columns, bytes, this.shift, this.band) : null;
    this.levels = []; // whole, half, quarter, …; empty until the film has come in
  }

  get complete() {
    return this.whole.filled === this.rows;
  }

  get progress() {
    return this.whole.filled / this.rows;
  }

  // Whether there is more to be seen than before.
  take(bytes) {
    const before = this.whole.filled;
    const previewed = this.small?.full;
    let rest = bytes;
    if (this.small && !this.small.full) rest = this.small.take(rest);
    this.whole.take(rest);
    return this.whole.filled > before || this.small?.full !== previewed;
  }

  // What the Modality LUT gives for a pixel.
  value(row, column) {
    return (this.whole.values[row * this.columns + column] - this.shift) * this.slope + this.intercept;
  }
}

// Rows of values, out of bands of differences that come in any pieces.
class Grid {
  constructor(rows, columns, bytes, shift, band) {
    Object.assign(this, { rows, columns, bytes, shift, band, filled: 0, at: 0 });
    this.values = new Uint16Array(rows * columns);
    this.packed = new Uint8Array(Math.min(band, rows) * columns * bytes);
  }

  get full() {
    return this.filled === this.rows;
  }

  // Takes what is its own; gives back the rest.
  take(bytes) {
    let rest = bytes;
    while (rest.length && !this.full) {
      const rows = Math.min(this.band, this.rows - this.filled);
      const wanted = rows * this.columns * this.bytes - this.at;
      const own = rest.subarray(0, wanted);
      this.packed.set(own, this.at);
      this.at += own.length;
      rest = rest.subarray(own.length);
      if (own.length === wanted) this.unpack(rows);
    }
    return rest;
  }

  unpack(rows) {
    const { columns, packed, values, shift } = this;
    const pixels = rows * columns;
    const mask = this.bytes === 1 ? 0xff : 0xffff;
    let to = this.filled * columns;
    for (let row = 0, from = 0; row < rows; row++) {
      let value = 0;
      for (let column = 0; column < columns; column++, from++) {
        value += packed[from];
        if (mask === 0xffff) value += packed[from + pixels] << 8;
        value &= mask;
        values[to++] = value ^ shift; // of 16 bits in two's complement this is the value plus 32768
      }
    }
    this.filled += rows;
    this.at = 0;
  }
}

function pyramid(whole) {
  const levels = [whole];
  for (let level = whole; Math.min(level.rows, level.columns) > 256; levels.push(level)) level = half(level);
  return levels;
}

// Means of two by two; the last row and column count twice where there is no other.
function half({ rows, columns, values }) {
  const smaller = { rows: (rows + 1) >> 1, columns: (columns + 1) >> 1 };
  smaller.values = new Uint16Array(smaller.rows * smaller.columns);
  for (let row = 0, to = 0; row < rows; row += 2) {
    let upper = row * columns;
    let lower = row + 1 < rows ? upper + columns : upper;
    const last = upper + columns - 1;
    for (; upper < last; upper += 2, lower += 2) {
      smaller.values[to++] = (values[upper] + values[upper + 1] + values[lower] + values[lower + 1]) >> 2;
    }
    if (upper === last) smaller.values[to++] = (values[upper] + values[lower]) >> 1;
  }
  return smaller;
}

// Value -> pixel of an ImageData, for every value of 16 bits: window (PS3.3 C.11.2), polarity, padding.
export function greys(film, { center, width, inverse }, table = new Uint32Array(1 << 16)) {
  const grey = curve(film, center, width);
  for (let value = 0; value < table.length; value++) {
    const y = grey((value - film.shift) * film.slope + film.intercept);
    table[value] = 0xff000000 | (Math.floor(255 * (inverse ? 1 - y : y) + 0.5) * 0x010101);
  }
  if (film.padding) table.fill(0xff000000, Math.max(0, film.padding[0] + film.shift), film.padding[1] + film.shift + 1);
  return table;
}

function curve(film, center, width) {
  const within = (x) => Math.min(1, Math.max(0, x));
  if (film.curve.length > 1) {
    const { curve: points } = film;
    return (x) => {
      const at = within((x - center) / width + 0.5) * (points.length - 1);
      const left = Math.min(points.length - 2, Math.floor(at));
      return points[left] + (points[left + 1] - points[left]) * (at - left);
    };
  }
  if (film.function === "SIGMOID") return (x) => 1 / (1 + Math.exp((-4 * (x - center)) / width));
  if (film.function === "LINEAR") return (x) => within((x - (center - 0.5)) / Math.max(width - 1, 1e-6) + 0.5);
  return (x) => within((x - center) / width + 0.5);
}

// A map of h x w numbers as an image for over the film: nothing where there is no evidence, warm where there is much.
export function warmth(values) {
  const fine = smooth(values, 16);
  const most = Math.max(...fine.flat());
  const canvas = document.createElement("canvas");
  [canvas.height, canvas.width] = [fine.length, fine[0].length];
  const image = new ImageData(canvas.width, canvas.height);
  fine.flat().forEach((value, at) => {
    const share = most > 0 ? Math.max(0, value) / most : 0;
    image.data.set([255, 70 + 150 * share, 40 + 60 * share ** 3, 235 * share ** 1.5], 4 * at);
  });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

// Catmull-Rom between the centres of the cells, first along the rows and then across: seven cells become no staircase.
function smooth(values, times) {
  const turned = (grid) => grid[0].map((_, column) => grid.map((row) => row[column]));
  return turned(turned(values.map((row) => finer(row, times))).map((row) => finer(row, times)));
}

function finer(points, times) {
  const point = (n) => points[Math.min(points.length - 1, Math.max(0, n))];
  return Array.from({ length: points.length * times }, (_, n) => {
    const at = (n + 0.5) / times - 0.5;
    const left = Math.floor(at);
    const t = at - left;
    const [a, b, c, d] = [point(left - 1), point(left), point(left + 1), point(left + 2)];
    return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)));
  });
}
