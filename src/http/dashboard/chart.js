// Received, unique and duplicate events per second: two stacked areas, whose upper edge is the number of received events.

import { count, rate, show } from './text.js';

/** The length of the history of the service. */
const SECONDS = 900;
/** Space for the labels of the axes, in pixels. */
const LEFT = 46;
const BOTTOM = 22;
const TOP = 8;
/** The smallest width of a column in pixels: on a phone a column is the mean of several seconds. */
const COLUMN_PX = 1.5;
/** The rates beside the chart are the mean of this many seconds. */
const RATE_SECONDS = 5;
/** After this many seconds without an answer no rates are shown. */
const SILENCE_SECONDS = 6;

const byId = (id) => document.getElementById(id);

export class Chart {
  constructor() {
    this.points = new Map(); // by the second, of the service's clock: [unique, duplicate]
    this.newest = undefined;
    this.span = SECONDS;
    this.cursor = undefined; // the selected second, counted back from the right edge
    this.svg = byId('chart');
    for (const button of document.querySelectorAll('[data-minutes]')) {
      button.addEventListener('click', () => this.zoom(button));
    }
    new ResizeObserver(() => this.draw()).observe(this.svg);
    this.svg.addEventListener('pointermove', (event) => this.point(event.offsetX));
    this.svg.addEventListener('pointerleave', () => this.read(undefined));
    this.svg.addEventListener('blur', () => this.read(undefined));
    this.svg.addEventListener('keydown', (event) => this.step(event));
  }

  /** The part of the history that the chart does not have yet, as the parameter `window`. */
  missing() {
    if (this.newest === undefined) return `${SECONDS}s`;
    const seconds = (performance.now() - this.newestAt) / 1000;
    // Two more: the last second may not have been over.
    return `${Math.min(SECONDS, Math.ceil(seconds) + 2)}s`;
  }

  /** Takes an answer of `/stats/history`. Points of a process that has ended stay. */
  add({ points }) {
    for (const { at, unique_processed: unique, duplicate_dropped: duplicate } of points) {
      const second = Math.floor(Date.parse(at) / 1000);
      this.points.set(second, [unique, duplicate]);
      if (this.newest === undefined || second >= this.newest) {
        this.newest = second;
        this.newestAt = performance.now();
      }
    }
    if (this.newest === undefined) return;
    for (const second of this.points.keys()) {
      if (second < this.newest - SECONDS) this.points.delete(second);
    }
    const recent = this.mean(this.newest - RATE_SECONDS + 1, RATE_SECONDS) ?? [0, 0];
    show(byId('rate-received'), `${rate(recent[0] + recent[1])}/s`);
    show(byId('rate-unique'), `${rate(recent[0])}/s`);
    show(byId('rate-duplicate'), `${rate(recent[1])}/s`);
    this.draw();
  }

  /** Draws the chart. The right edge is now. While the service does not answer, a gap grows there. */
  draw() {
    const { width, height } = this.svg.getBoundingClientRect();
    if (width < LEFT * 2 || document.hidden) return;
    const silence = this.newest === undefined ? 0 : Math.max(0, Math.floor((performance.now() - this.newestAt) / 1000) - 2);
    if (silence >= SILENCE_SECONDS) {
      for (const name of ['received', 'unique', 'duplicate']) show(byId(`rate-${name}`), '–');
    }
    const end = (this.newest ?? 0) + silence;
    const step = Math.ceil((this.span * COLUMN_PX) / (width - LEFT));
    const columns = this.columns(end, step);
    const top = ceiling(Math.max(...columns.map(({ mean }) => (mean ? mean[0] + mean[1] : 0)), 0));
    this.frame = { width, height, end, top };
    const x = (second) => LEFT + (width - LEFT) * (1 - (end - second) / this.span);
    const y = (events) => TOP + (height - TOP - BOTTOM) * (1 - events / top);
    this.svg.setAttribute('viewBox', `0 0 ${width} ${height}`);
    this.svg.replaceChildren(...this.axes(x, y), ...this.areas(columns, x, y), ...this.pointer(x, y));
  }

  /** The means of the seconds shown, `step` seconds each, at fixed points in time, so that the chart moves without flickering. */
  columns(end, step) {
    const columns = [];
    const first = Math.ceil((end - this.span) / step) * step;
    for (let at = first; at + step - 1 <= end; at += step) columns.push({ at: at + (step - 1) / 2, mean: this.mean(at, step) });
    return columns;
  }

  /** The mean events per second from `at` on, of the known seconds. */
  mean(at, seconds) {
    let [unique, duplicate, known] = [0, 0, 0];
    for (let second = at; second < at + seconds; second += 1) {
      const point = this.points.get(second);
      if (!point) continue;
      unique += point[0];
      duplicate += point[1];
      known += 1;
    }
    return known > 0 ? [unique / known, duplicate / known] : undefined;
  }

  areas(columns, x, y) {
    const [unique, duplicate, received] = [[], [], []];
    for (const run of runs(columns)) {
      const along = (value) => run.map(({ at, mean }) => `${x(at).toFixed(1)},${y(value(mean)).toFixed(1)}`);
      const [lower, middle, upper] = [along(() => 0), along((mean) => mean[0]), along((mean) => mean[0] + mean[1])];
      unique.push(`M${middle.join('L')}L${lower.reverse().join('L')}Z`);
      received.push(`M${upper.join('L')}`);
      duplicate.push(`M${upper.join('L')}L${middle.reverse().join('L')}Z`);
    }
    return [['unique', unique], ['duplicate', duplicate], ['received', received]].map(([name, paths]) =>
      shape('path', { class: name, d: paths.join('') }));
  }

  axes(x, y) {
    const { width, height, end, top } = this.frame;
    const shapes = [];
    for (const part of [0, 0.5, 1]) {
      const line = Math.round(y(top * part)) + 0.5;
      shapes.push(shape('line', { class: 'grid', x1: LEFT, x2: width, y1: line, y2: line }));
      shapes.push(shape('text', { class: 'axis', x: LEFT - 8, y: line + 4, 'text-anchor': 'end' }, short(top * part)));
    }
    const [parts, unit] = this.span > 60 ? [this.span / 60 > 5 ? 3 : 5, 60] : [4, 1];
    for (let part = 0; part <= parts; part += 1) {
      const back = (this.span * (parts - part)) / parts;
      const text = back === 0 ? 'now' : `−${back / unit}\u202f${unit === 60 ? 'min' : 's'}`;
      const anchor = part === 0 ? 'start' : part === parts ? 'end' : 'middle';
      shapes.push(shape('text', { class: 'axis', x: x(end - back), y: height - 4, 'text-anchor': anchor }, text));
    }
    return shapes;
  }

  pointer(x, y) {
    const reading = byId('reading');
    reading.hidden = this.cursor === undefined;
    if (this.cursor === undefined) return [];
    const { end, top, width } = this.frame;
    const second = end - this.cursor;
    const point = this.points.get(second);
    const time = new Date(second * 1000).toLocaleTimeString('en-GB');
    show(reading, point
      ? `${time}  received ${count(point[0] + point[1])}, unique ${count(point[0])}, duplicates ${count(point[1])}`
      : `${time}  unknown`);
    reading.classList.toggle('left', x(second) > width / 2);
    return [shape('line', { class: 'pointer', x1: x(second), x2: x(second), y1: y(top), y2: y(0) })];
  }

  zoom(chosen) {
    this.span = Number(chosen.dataset.minutes) * 60;
    for (const button of document.querySelectorAll('[data-minutes]')) {
      button.setAttribute('aria-pressed', String(button === chosen));
    }
    this.cursor = undefined;
    this.draw();
  }

  point(offset) {
    if (!this.frame) return;
    const back = Math.round(((this.frame.width - offset) / (this.frame.width - LEFT)) * this.span);
    this.read(back >= 0 && back <= this.span ? back : undefined);
  }

  step(event) {
    const steps = { ArrowLeft: 1, ArrowRight: -1 }[event.key];
    if (!steps) return;
    event.preventDefault();
    this.read(Math.min(this.span, Math.max(0, (this.cursor ?? -steps) + steps)));
  }

  read(back) {
    if (this.cursor === back) return;
    this.cursor = back;
    this.draw();
  }
}

/** The runs of columns without a gap. */
function runs(columns) {
  const all = [[]];
  for (const column of columns) {
    if (column.mean) all.at(-1).push(column);
    else if (all.at(-1).length > 0) all.push([]);
  }
  return all.filter((run) => run.length > 0);
}

/** The next larger round number whose half is round, too. */
function ceiling(most) {
  for (let size = 10; ; size *= 10) {
    for (const part of [1, 2, 3, 4, 6, 8]) if (most <= part * size) return part * size;
  }
}

function short(events) {
  return events >= 1000 ? `${events / 1000}\u202fk` : String(events);
}

function shape(name, attributes, text) {
  const made = document.createElementNS('http://www.w3.org/2000/svg', name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  if (text !== undefined) made.textContent = text;
  return made;
}
