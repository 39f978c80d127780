// The page: reads from the service once a second while the page is visible, and less often while the service does not answer.

import { json } from './request.js';
import { Chart } from './chart.js';
import { showHealth, showStats } from './statistics.js';
import { Live } from './live.js';
import { listen } from './search.js';
import { duration, show } from './text.js';
import { Topics } from './topics.js';

const INTERVAL_MS = 1000;
/** While requests fail, the interval grows up to this: a long outage costs almost nothing, and its end is noticed soon. */
const INTERVAL_MAX_MS = 5000;
/** Statistics older than this are marked as stale: an answer or two may be late on a busy machine. */
const STALE_MS = 3500;
/** After this many requests without an answer, the page says that the service does not answer. */
const UNANSWERED_MAX = 2;

const byId = (id) => document.getElementById(id);
const chart = new Chart();
const topics = new Topics();
const live = new Live();

let failures = 0;
let statsAt; // when the statistics on the page were read, by this machine's monotonic clock
let uptime = 0;
let isNewProcess = true; // after the start of the page, and after a restart of the service
let problem = ''; // what is wrong, for people
let unanswered = 0; // how many requests for the health in a row had no answer
let timer;
let isUpdating = false;

async function updateHealth() {
  let health;
  try {
    health = await json('health', [503]);
    unanswered = 0;
  } catch (error) {
    // One lost answer may be the network and is not reported.
    unanswered += 1;
    if (unanswered < UNANSWERED_MAX) throw error;
    health = { status: 'no response' };
  }
  showHealth(health);
  if (health.status === 'no response') {
    problem = 'eventsieve is not responding. Retrying…';
  } else if (health.status === 'unhealthy') {
    problem = `The store is down. ${health.store.reason ?? ''}`;
  } else {
    problem = '';
  }
  showAlert();
}

async function updateStats() {
  const stats = await json('stats');
  statsAt = performance.now();
  if (stats.uptime_seconds < uptime) isNewProcess = true;
  uptime = stats.uptime_seconds;
  showStats(stats);
  topics.update(stats);
  live.rate = stats.performance.events_per_second;
  showAlert();
}

async function updateHistory() {
  chart.add(await json(`stats/history?window=${chart.missing()}`));
}

async function updateVersion() {
  show(byId('version'), `version ${(await json('./')).version}`);
}

async function update() {
  isUpdating = true;
  if (isNewProcess) {
    isNewProcess = false;
    updateVersion().catch(() => { isNewProcess = true; });
  }
  // The latest events may be large and slow to arrive. The statistics do not wait for them.
  live.update().catch(() => {});
  const [stats] = await Promise.allSettled([updateStats(), updateHealth(), updateHistory()]);
  failures = stats.status === 'rejected' ? failures + 1 : 0;
  isUpdating = false;
  schedule();
}

/** Schedules the next update, with jitter after a failure, so that pages that lost the service do not all return at once. */
function schedule() {
  clearTimeout(timer);
  if (document.hidden) return;
  const interval = Math.min(INTERVAL_MS * 2 ** failures, INTERVAL_MAX_MS);
  timer = setTimeout(update, failures > 0 ? interval * (0.75 + Math.random() / 2) : interval);
}

function showAlert() {
  const age = statsAt === undefined ? 0 : performance.now() - statsAt;
  const isStale = statsAt !== undefined && age > STALE_MS;
  document.body.classList.toggle('stale', isStale);
  byId('alert').hidden = !problem && !isStale;
  // Screen readers read the sentence when it changes. The age beside it changes all the time and is not read.
  show(byId('alert-text'), problem || (isStale ? 'The statistics cannot be read at the moment.' : ''));
  show(byId('alert-age'), isStale ? `The statistics on this page were read ${duration(age / 1000)} ago.` : '');
  document.title = problem ? 'down: eventsieve' : 'eventsieve';
}

document.addEventListener('visibilitychange', () => {
  live.setVisible(!document.hidden);
  clearTimeout(timer);
  if (!document.hidden && !isUpdating) update();
});
setInterval(() => {
  if (document.hidden) return;
  showAlert();
  chart.draw();
}, INTERVAL_MS);

byId('first-event').textContent = `curl -X POST ${new URL('publish', document.baseURI).href} \\
  -H 'content-type: application/json' \\
  -d '{"topic": "order.created", "event_id": "evt-1", "timestamp": "${new Date().toISOString()}",
       "source": "shop", "payload": {"order_id": 1}}'`;
listen();
update();
