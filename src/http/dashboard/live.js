// The latest events, newest on top, whatever the rate. Few events are followed one by one, on the stream. Many are sampled: the
// newest are listed once a second, as many at any rate, and this page can never fall behind.

import { text } from './ask.js';
import { count, element, parse, show, timeOfDay } from './text.js';

/** More than so many events in a second are not followed: nobody could read them. */
const FOLLOWED_MAX = 100;
/** How many events are listed at a time, and how many are kept on the page. */
const LISTED = 30;
const KEPT = 100;
/** After so many looks in a row that found few events the stream is followed again. */
const QUIET_LOOKS = 2;
/** So many more after the stream had too many: a rate that comes and goes shall not make the page do so. */
const FLOODED_LOOKS = 3;
/** What has come is put on the page so often. */
const DRAW_MS = 250;

const byId = (id) => document.getElementById(id);

export class Live {
  constructor() {
    this.list = byId('live');
    this.shown = new Set(); // the cursors of the events on the page
    this.waiting = []; // events that are not on the page yet, the oldest first: JSON as it came on the stream
    this.quiet = QUIET_LOOKS;
    this.rate = Infinity; // events a second, as the service says
    this.arrived = 0;
    this.pause = byId('pause');
    this.pause.addEventListener('click', () => this.hold(!this.isHeld));
    // An event that is read shall not move away.
    this.list.addEventListener('toggle', (event) => {
      if (event.target.open) this.open(event.target);
    }, true);
  }

  /** Called once a second, while the page is seen. */
  async look() {
    this.arrived = 0;
    if (this.isHeld || this.stream || this.isLooking) return;
    this.isLooking = true;
    try {
      // As text: a payload's numbers keep their digits only if they are parsed with care.
      this.take(parse(await text(`events?order=desc&limit=${LISTED}`)));
    } finally {
      this.isLooking = false;
    }
  }

  /** Shows a sample, and follows the stream from there if few events come: so few that the sample before missed none, or that the
   * service says so. */
  take(page) {
    if (this.isHeld || document.hidden) return;
    const fresh = page.events.filter((event) => !this.shown.has(event.cursor));
    const missedNothing = fresh.length < page.events.length || page.events.length < LISTED || this.shown.size === 0;
    this.quiet = missedNothing || this.rate <= FOLLOWED_MAX ? this.quiet + 1 : Math.min(this.quiet, 0);
    this.put(fresh);
    if (this.quiet >= QUIET_LOOKS) this.follow(page.next);
    else show(byId('live-note'), `A sample: the newest ${LISTED}, once a second`);
  }

  /** Whether anybody looks: an unseen page holds no connection, of which a browser has only six for each host. */
  seen(isSeen) {
    if (!isSeen) this.leave();
  }

  follow(after) {
    this.stream = new EventSource(`events/stream?after=${encodeURIComponent(after)}`);
    this.stream.addEventListener('event', ({ data }) => {
      this.waiting.push(data);
      this.arrived += 1;
      if (this.arrived > FOLLOWED_MAX) this.leave(-FLOODED_LOOKS);
      this.timer ??= setTimeout(() => this.draw(), DRAW_MS);
    });
    // The looks go on, and follow again once the service answers.
    this.stream.addEventListener('error', () => this.leave());
    show(byId('live-note'), 'Every event, as it is stored');
  }

  leave(quiet = 0) {
    this.stream?.close();
    this.stream = undefined;
    this.quiet = quiet;
  }

  draw() {
    this.timer = undefined;
    // Only those that will be seen are parsed.
    const fresh = this.waiting.slice(-KEPT).reverse().map((data) => parse(data));
    this.waiting = [];
    if (!this.isHeld) this.put(fresh.filter((event) => !this.shown.has(event.cursor)));
  }

  /** Puts events on top, the newest first, and lets go of the oldest. */
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

  /** Writes the payload out, the first time it is unfolded. */
  open(details) {
    this.hold(true);
    if (details.childElementCount > 1) return;
    const payload = element('pre', '', JSON.stringify(details.payload, null, 2));
    payload.tabIndex = 0;
    details.append(payload);
  }

  hold(isHeld) {
    this.isHeld = isHeld;
    this.pause.setAttribute('aria-pressed', String(isHeld));
    show(this.pause, isHeld ? 'Resume' : 'Pause');
    this.leave();
    if (isHeld) show(byId('live-note'), `Paused, at the ${count(this.list.childElementCount)} latest events`);
  }
}
