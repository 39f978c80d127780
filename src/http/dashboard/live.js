// The latest events, newest on top, at any rate. At low rates the page subscribes to the stream and shows each event. At high rates
// it shows a sample: it lists the newest events once a second, so it can never fall behind.

import { text } from './request.js';
import { count, element, parse, show, timeOfDay } from './text.js';

/** Above this rate, in events per second, the page shows a sample, because nobody can read more. */
const STREAM_RATE_MAX = 100;
/** How many events a sample has, and how many stay on the page. */
const SAMPLE = 30;
const KEPT = 100;
/** After this many samples in a row with few events the page subscribes again. */
const QUIET_SAMPLES = 2;
/** This many more samples after a stream that was too fast, so that a changing rate does not make the page switch all the time. */
const FLOODED_SAMPLES = 3;
/** How often new events are drawn. */
const DRAW_MS = 250;

const byId = (id) => document.getElementById(id);

export class Live {
  constructor() {
    this.list = byId('live');
    this.shown = new Set(); // the cursors of the events on the page
    this.waiting = []; // events that are not on the page yet, the oldest first, as JSON from the stream
    this.quiet = QUIET_SAMPLES;
    this.rate = Infinity; // events per second, as the service reports
    this.arrived = 0;
    this.pause = byId('pause');
    this.pause.addEventListener('click', () => this.setPaused(!this.isPaused));
    // An event that is open must not move.
    this.list.addEventListener('toggle', (event) => {
      if (event.target.open) this.open(event.target);
    }, true);
  }

  /** Called once a second while the page is visible. */
  async update() {
    this.arrived = 0;
    if (this.isPaused || this.stream || this.isUpdating) return;
    this.isUpdating = true;
    try {
      // As text, because the numbers of a payload keep all digits only with `parse`.
      this.take(parse(await text(`events?order=desc&limit=${SAMPLE}`)));
    } finally {
      this.isUpdating = false;
    }
  }

  /** Shows a sample, and subscribes from there if few events come: so few that no event is missing since the last sample, or that the
   * service reports a low rate. */
  take(page) {
    if (this.isPaused || document.hidden) return;
    const fresh = page.events.filter((event) => !this.shown.has(event.cursor));
    const missedNothing = fresh.length < page.events.length || page.events.length < SAMPLE || this.shown.size === 0;
    this.quiet = missedNothing || this.rate <= STREAM_RATE_MAX ? this.quiet + 1 : Math.min(this.quiet, 0);
    this.put(fresh);
    if (this.quiet >= QUIET_SAMPLES) this.subscribe(page.next);
    else show(byId('live-note'), `Sampled: the ${SAMPLE} newest events, once a second`);
  }

  /** A hidden page holds no connection, because a browser has only six for each host. */
  setVisible(isVisible) {
    if (!isVisible) this.unsubscribe();
  }

  subscribe(after) {
    this.stream = new EventSource(`events/stream?after=${encodeURIComponent(after)}`);
    this.stream.addEventListener('message', ({ data }) => {
      this.waiting.push(data);
      this.arrived += 1;
      if (this.arrived > STREAM_RATE_MAX) this.unsubscribe(-FLOODED_SAMPLES);
      this.timer ??= setTimeout(() => this.draw(), DRAW_MS);
    });
    // Updates continue, and subscribe again once the service answers.
    this.stream.addEventListener('error', () => this.unsubscribe());
    // The store was replaced: the position is worth nothing there. The next update brings another one.
    this.stream.addEventListener('cursor_unknown', () => this.unsubscribe());
    show(byId('live-note'), 'Every event, as it is stored');
  }

  unsubscribe(quiet = 0) {
    this.stream?.close();
    this.stream = undefined;
    this.quiet = quiet;
  }

  draw() {
    this.timer = undefined;
    // Only the events that will be shown are parsed.
    const fresh = this.waiting.slice(-KEPT).reverse().map((data) => parse(data));
    this.waiting = [];
    if (!this.isPaused) this.put(fresh.filter((event) => !this.shown.has(event.cursor)));
  }

  /** Puts events on top, the newest first, and removes the oldest. */
  put(fresh) {
    if (fresh.length === 0) return;
    this.list.prepend(...fresh.map((event) => this.item(event)));
    while (this.list.childElementCount > KEPT) {
      this.shown.delete(this.list.lastElementChild.dataset.cursor);
      this.list.lastElementChild.remove();
    }
  }

  item(event) {
    this.shown.add(event.cursor);
    const item = element('li');
    item.dataset.cursor = event.cursor;
    const details = element('details');
    const summary = element('summary');
    const time = element('time', '', timeOfDay(new Date(event.received_at)));
    time.dateTime = event.received_at;
    time.title = `received ${event.received_at}`;
    summary.append(
      time, element('span', 'topic', event.topic), element('span', 'id', event.event_id), element('span', 'source', event.source),
    );
    details.append(summary);
    details.payload = event.payload;
    item.append(details);
    return item;
  }

  /** Writes the payload when an event is opened for the first time. */
  open(details) {
    this.setPaused(true);
    if (details.childElementCount > 1) return;
    const payload = element('pre', '', JSON.stringify(details.payload, null, 2));
    payload.tabIndex = 0;
    details.append(payload);
  }

  setPaused(isPaused) {
    this.isPaused = isPaused;
    this.pause.setAttribute('aria-pressed', String(isPaused));
    show(this.pause, isPaused ? 'Resume' : 'Pause');
    this.unsubscribe();
    if (isPaused) show(byId('live-note'), `Paused, at the ${count(this.list.childElementCount)} latest events`);
  }
}
