// Points on a canvas: moved, zoomed, and where there is room drawn as pictures.
import { pictureBlob } from "./pictures.js";

// Points in sight below which their pictures are drawn, and pictures that are held.
const FEW = 260;
const MOST_PICTURES = 320;
const AT_ONCE = 6;
const CELL = 24;
// Of a cell's width, the side of a picture.
const FILLED = 0.9;
const [SMALLEST, LARGEST] = [18, 64];
// Around a picture, so that it stands on white in either theme.
const PAPER = 2;
const [LEAST_ZOOM, MOST_ZOOM] = [0.8, 400];
const MARGIN = 28;
const REACH = 14;

export class Chart {
  constructor(canvas, { picture, hovered, chosen, moved }) {
    Object.assign(this, { canvas, picture, hovered, chosen, moved });
    this.context = canvas.getContext("2d");
    this.pictures = new Map();
    this.loading = 0;
    this.waiting = [];
    this.pointers = new Map();
    this.clear();
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
    this.listen();
  }

  clear() {
    for (const held of this.pictures.values()) held?.close?.();
    this.pictures.clear();
    this.waiting = [];
    [this.ids, this.xs, this.ys, this.drawn] = [[], [], [], false];
    this.view = { x: 0, y: 0, zoom: 1 };
    this.draw();
  }

  // Points within -1 to 1.
  set(ids, xs, ys, drawn) {
    this.clear();
    Object.assign(this, { ids, xs: Float32Array.from(xs), ys: Float32Array.from(ys), drawn });
    this.draw();
  }

  whole() {
    this.view = { x: 0, y: 0, zoom: 1 };
    this.changed();
  }

  changed() {
    // What the pointer is over is another point now, if any.
    this.hovered(undefined);
    this.draw();
    this.moved();
  }

  scale() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    return (Math.max(40, Math.min(width, height) - 2 * MARGIN) / 2) * this.view.zoom;
  }

  toScreen(x, y) {
    const scale = this.scale();
    return [this.canvas.clientWidth / 2 + (x - this.view.x) * scale,
      this.canvas.clientHeight / 2 + (y - this.view.y) * scale];
  }

  // Zooms around a place on the screen, the middle unless it is said.
  zoom(by, px = this.canvas.clientWidth / 2, py = this.canvas.clientHeight / 2) {
    const before = this.scale();
    this.view.zoom = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, this.view.zoom * by));
    const after = this.scale();
    this.view.x += (px - this.canvas.clientWidth / 2) * (1 / before - 1 / after);
    this.view.y += (py - this.canvas.clientHeight / 2) * (1 / before - 1 / after);
    this.changed();
  }

  pan(dx, dy) {
    const scale = this.scale();
    this.view.x = Math.max(-1.2, Math.min(1.2, this.view.x - dx / scale));
    this.view.y = Math.max(-1.2, Math.min(1.2, this.view.y - dy / scale));
    this.changed();
  }

  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.paint();
    });
  }

  inSight() {
    const scale = this.scale();
    const w = this.canvas.clientWidth / 2 / scale;
    const h = this.canvas.clientHeight / 2 / scale;
    const seen = [];
    for (let i = 0; i < this.ids.length; i += 1) {
      if (Math.abs(this.xs[i] - this.view.x) <= w && Math.abs(this.ys[i] - this.view.y) <= h) seen.push(i);
    }
    return seen;
  }

  paint() {
    const { canvas, context } = this;
    const [width, height, ratio] = [canvas.clientWidth, canvas.clientHeight, devicePixelRatio || 1];
    if (!width || !height) return;
    const size = [Math.round(width * ratio), Math.round(height * ratio)];
    if (canvas.width !== size[0] || canvas.height !== size[1]) [canvas.width, canvas.height] = size;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    const seen = this.inSight();
    // Where points lie close, only some are pictures; one has the same place at every zoom.
    const { chosen: near, side } = this.drawn ? this.spread(seen, width) : { chosen: [] };
    const radius = Math.min(4, 1.4 + 0.35 * Math.log2(this.view.zoom + 1));
    context.fillStyle = getComputedStyle(canvas).getPropertyValue("--point");
    for (const i of seen) {
      const [x, y] = this.toScreen(this.xs[i], this.ys[i]);
      context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
    }
    const wanted = [];
    for (const i of near) {
      const held = this.pictures.get(this.ids[i]);
      if (held === undefined) wanted.push(this.ids[i]);
      else if (held) this.stamp(held, this.toScreen(this.xs[i], this.ys[i]), side);
    }
    this.waiting = wanted;
    this.fetchMore();
    canvas.dataset.points = String(seen.length);
    canvas.dataset.pictures = String(near.length - wanted.length);
  }

  // Points whose pictures do not cover each other: at most one of each cell of the screen, as many
  // cells as pictures may be drawn, and none nearer to another than a picture is wide.
  spread(seen, width) {
    const room = Math.sqrt((width * this.canvas.clientHeight) / Math.min(FEW, Math.max(seen.length, 1)));
    const cell = Math.max(CELL, Math.min(LARGEST / FILLED, room));
    const side = Math.max(SMALLEST, cell * FILLED);
    const taken = new Map();
    const covers = (at, x, y) => {
      const there = taken.get(at);
      return there && Math.abs(there.x - x) < side && Math.abs(there.y - y) < side;
    };
    for (const i of seen) {
      const [x, y] = this.toScreen(this.xs[i], this.ys[i]);
      const [column, row] = [Math.floor(x / cell), Math.floor(y / cell)];
      if (taken.has(`${column},${row}`)) continue;
      const around = [-1, 0, 1].flatMap((c) => [-1, 0, 1].map((r) => `${column + c},${row + r}`));
      if (!around.some((at) => covers(at, x, y))) taken.set(`${column},${row}`, { i, x, y });
    }
    return { chosen: [...taken.values()].map((t) => t.i).slice(0, FEW), side };
  }

  stamp(picture, [x, y], side) {
    const fit = (side - 2 * PAPER) / Math.max(picture.width, picture.height);
    const [w, h] = [picture.width * fit, picture.height * fit];
    this.context.fillStyle = "#ffffff";
    this.context.beginPath();
    this.context.roundRect(x - w / 2 - PAPER, y - h / 2 - PAPER, w + 2 * PAPER, h + 2 * PAPER, 2 * PAPER);
    this.context.fill();
    this.context.drawImage(picture, x - w / 2, y - h / 2, w, h);
  }

  async fetchMore() {
    while (this.loading < AT_ONCE && this.waiting.length) {
      const id = this.waiting.shift();
      if (this.pictures.has(id)) continue;
      this.loading += 1;
      this.pictures.set(id, null);
      this.fetchOne(id).finally(() => {
        this.loading -= 1;
        this.draw();
      });
    }
  }

  async fetchOne(id) {
    try {
      const blob = await pictureBlob(this.picture(id));
      const bitmap = await createImageBitmap(blob, { resizeWidth: 96, resizeQuality: "medium" });
      // The map may be another one by now.
      if (this.pictures.get(id) === null) this.pictures.set(id, bitmap);
      else bitmap.close();
    } catch {
      // It stays a point.
    }
    while (this.pictures.size > MOST_PICTURES) {
      const [oldest, held] = this.pictures.entries().next().value;
      held?.close?.();
      this.pictures.delete(oldest);
    }
  }

  // The ids nearest to a place on the screen, the middle unless it is said.
  nearest(n, px = this.canvas.clientWidth / 2, py = this.canvas.clientHeight / 2, within = Infinity) {
    const away = (i) => {
      const [x, y] = this.toScreen(this.xs[i], this.ys[i]);
      return Math.hypot(x - px, y - py);
    };
    const all = this.inSight().map((i) => [away(i), i]).filter(([far]) => far <= within);
    return all.sort((a, b) => a[0] - b[0]).slice(0, n).map(([, i]) => this.ids[i]);
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  listen() {
    const { canvas, pointers } = this;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * 0.0015), ...this.at(event));
    }, { passive: false });
    let travelled = 0;
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pointers.set(event.pointerId, this.at(event));
      if (pointers.size === 1) travelled = 0;
    });
    canvas.addEventListener("pointermove", (event) => {
      const now = this.at(event);
      const before = pointers.get(event.pointerId);
      if (!before) return this.hovered(this.nearest(1, ...now, REACH)[0], ...now);
      const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
      if (others.length) {
        const far = (p) => Math.max(10, Math.hypot(p[0] - others[0][0], p[1] - others[0][1]));
        this.zoom(far(now) / far(before), ...others[0]);
        travelled = Infinity;
      } else {
        travelled += Math.hypot(now[0] - before[0], now[1] - before[1]);
        this.pan(now[0] - before[0], now[1] - before[1]);
      }
      pointers.set(event.pointerId, now);
    });
    const up = (event) => {
      const still = pointers.delete(event.pointerId) && travelled < 6 && event.type === "pointerup";
      const [id] = still ? this.nearest(1, ...this.at(event), REACH * 1.5) : [];
      if (id) this.chosen(id);
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("pointerleave", () => this.hovered(undefined));
    canvas.addEventListener("keydown", (event) => {
      const step = 60;
      const moves = { ArrowLeft: [step, 0], ArrowRight: [-step, 0], ArrowUp: [0, step], ArrowDown: [0, -step] };
      if (moves[event.key]) this.pan(...moves[event.key]);
      else if (event.key === "+" || event.key === "=") this.zoom(1.4);
      else if (event.key === "-") this.zoom(1 / 1.4);
      else if (event.key === "0") this.whole();
      else if (event.key === "Enter" && this.nearest(1)[0]) this.chosen(this.nearest(1)[0]);
      else return;
      event.preventDefault();
    });
  }
}
