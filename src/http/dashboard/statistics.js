// The totals, the pipeline, and the health of the store and the sink.

import { count, duration, element, fixed, percent, rate, show } from './text.js';

const byId = (id) => document.getElementById(id);

/** Shows an answer of `/stats`. */
export function showStats(stats) {
  const { received, unique_processed: unique, duplicate_dropped: duplicates, conflicts } = stats;
  const rows = stats.database_total_rows;
  const { events_per_second: perSecond, commit_latency_ms: latency, duplicate_rate: part } = stats.performance;
  const rejected = stats.uptime_stats.rejected;
  const milliseconds = (ms) => (ms > 0 ? `${fixed(ms, 1)}\u202fms` : 'none yet');
  const texts = {
    received: count(received),
    unique: count(unique),
    duplicates: count(duplicates),
    conflicts: count(conflicts),
    rows: count(rows),
    'received-note': `${rate(perSecond)}/s now${rejected > 0 ? `, ${count(rejected)} rejected` : ''}`,
    'unique-note': received > 0 ? `${percent(1 - part)} of received` : 'stored once',
    'duplicates-note': received > 0 ? `${percent(part)} of received` : 'dropped',
    'rows-note': unique > rows ? `${count(unique - rows)} pruned` : 'none pruned',
    p50: milliseconds(latency.p50),
    p99: milliseconds(latency.p99),
    queue: `${count(stats.queue.events)} of ${count(stats.queue.capacity)}`,
    outbox: stats.outbox.batches > 0
      ? `${count(stats.outbox.batches)} ${stats.outbox.batches === 1 ? 'batch' : 'batches'}, ${duration(stats.outbox.oldest_seconds)}`
      : 'empty',
    'dead-letters': count(stats.outbox.parked),
    'visibility-lag': `${fixed(stats.log.unsettled_seconds, 1)}\u202fs`,
    uptime: `up ${duration(stats.uptime_seconds)}`,
  };
  for (const [id, text] of Object.entries(texts)) show(byId(id), text);
  // Values that an operator should look into.
  byId('dead-letters').classList.toggle('bad', stats.outbox.parked > 0);
  byId('conflicts').classList.toggle('bad', conflicts > 0);
  byId('queue').classList.toggle('bad', stats.queue.events > stats.queue.capacity * 0.8);
  byId('visibility-lag').classList.toggle('bad', stats.log.unsettled_seconds > 10);
  byId('empty').hidden = received > 0;
}

const STATES = { healthy: 'good', degraded: 'worse', unhealthy: 'bad', 'no response': 'bad' };

/** Shows an answer of `/health`, or `{status: 'no response'}`. */
export function showHealth({ status, store, fanout }) {
  showState(byId('status'), status, STATES[status] ?? 'worse');
  showPart('store', store, 'bad');
  showPart('fanout', fanout, 'worse');
}

function showPart(name, part, whenDown) {
  const place = byId(name);
  const state = place.firstElementChild ?? place.appendChild(element('span', 'state'));
  showState(state, partText(part), !part ? 'wait' : part.status === 'up' ? 'good' : whenDown);
  const reason = byId(`${name}-reason`);
  reason.hidden = !part?.reason;
  show(reason, part?.reason ?? '');
}

/** A process without Redis reports itself as the sink. */
function partText(part) {
  if (!part) return 'unknown';
  return part.kind === 'process' ? 'none (no Redis configured)' : `${part.kind} is ${part.status}`;
}

function showState(place, text, state) {
  show(place, text);
  place.dataset.state = state;
}
