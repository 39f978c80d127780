// The page: asks the service once a second while somebody looks, and later and later while it does not answer.

import { json } from './ask.js';
import { Chart } from './chart.js';
import { showFigures, showHealth } from './statistics.js';
import { Live } from './live.js';
import { listen } from './search.js';
import { duration, show } from './text.js';
import { Topics } from './topics.js';

const INTERVAL_MS = 1000;
/** While it fails, the interval grows up to this: an outage of hours costs next to nothing, and its end is seen soon. */
const INTERVAL_MAX_MS = 5000;
/** Figures older than this are marked: an answer or two may be late on a busy machine. */
const STALE_MS = 3500;
/** The service is said to be away when it was asked so often in vain. */
const SILENCES_TOLD = 2;

const byId = (id) => document.getElementById(id);
const chart = new Chart();
const topics = new Topics();
const live = new Live();

let failures = 0;
let figuresAt; // when the figures shown were answered, by this machine's monotonic clock
let uptime = 0;
let isNew = true; // whether this process is one that was not asked before: the page's start, and the service's
let trouble = ''; // what is wrong, for people
let silences = 0; // asked for health in vain, so many times in a row
let timer;
let looking = false;

async function lookAtHealth() {
  let health;
  try {
    health = await json('health', [503]);
    silences = 0;
  } catch (error) {
    // One lost answer is the network's mood, and no news.
    silences += 1;
    if (silences < SILENCES_TOLD) throw error;
    health = { status: 'no answer' };
  }
  showHealth(health);
  if (health.status === 'no answer') {
    trouble = 'eventsieve does not answer. This page goes on asking.';
  } else if (health.status === 'unhealthy') {
    trouble = `The store is down. ${health.store.reason ?? ''}`;
  } else {
    trouble = '';
  }
  showTrouble();
}

async function lookAtStats() {
  const stats = await json('stats');
  figuresAt = performance.now();
  if (stats.uptime_seconds < uptime) isNew = true;
  uptime = stats.uptime_seconds;
  showFigures(stats);
  topics.update(stats);
  live.rate = stats.performance.events_per_second;
  showTrouble();
}

async function lookAtHistory() {
  chart.add(await json(`stats/history?window=${chart.missing()}`));
}

async function lookAtVersion() {
  show(byId('version'), `version ${(await json('./')).version}`);
}

async function look() {
  looking = true;
  if (isNew) {
    isNew = false;
    lookAtVersion().catch(() => { isNew = true; });
  }
  // The latest events may be large, and slow to come: the figures do not wait for them, nor are they stale without them.
  live.look().catch(() => {});
  const [stats] = await Promise.allSettled([lookAtStats(), lookAtHealth(), lookAtHistory()]);
  failures = stats.status === 'rejected' ? failures + 1 : 0;
  looking = false;
  plan();
}

/** The next look. Not all pages that lost the service shall ask at the same instant. */
function plan() {
  clearTimeout(timer);
  if (document.hidden) return;
  const interval = Math.min(INTERVAL_MS * 2 ** failures, INTERVAL_MAX_MS);
  timer = setTimeout(look, failures > 0 ? interval * (0.75 + Math.random() / 2) : interval);
}

function showTrouble() {
  const age = figuresAt === undefined ? 0 : performance.now() - figuresAt;
  const isStale = figuresAt !== undefined && age > STALE_MS;
  document.body.classList.toggle('stale', isStale);
  byId('trouble').hidden = !trouble && !isStale;
  // The sentence is read out when it changes; the age beside it changes all the time and is not.
  show(byId('trouble-text'), trouble || (isStale ? 'The figures cannot be read at the moment.' : ''));
  show(byId('trouble-age'), isStale ? `Figures of ${duration(age / 1000)} ago.` : '');
  document.title = trouble ? 'down: eventsieve' : 'eventsieve';
}

document.addEventListener('visibilitychange', () => {
  live.seen(!document.hidden);
  clearTimeout(timer);
  if (!document.hidden && !looking) look();
});
setInterval(() => {
  if (document.hidden) return;
  showTrouble();
  chart.draw();
}, INTERVAL_MS);

byId('first-event').textContent = `curl -X POST ${new URL('publish', document.baseURI).href} \\
  -H 'content-type: application/json' \\
  -d '{"topic": "order.created", "event_id": "evt-1", "timestamp": "${new Date().toISOString()}",
       "source": "shop", "payload": {"order_id": 1}}'`;
listen();
look();
