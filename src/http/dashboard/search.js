// The search for an event by topic and id: the event as it is stored, and when its first copy was received.

import { text } from './request.js';
import { duration, element, parse } from './text.js';

const byId = (id) => document.getElementById(id);

/** Handles the form. */
export function listen() {
  byId('search').addEventListener('submit', (event) => {
    event.preventDefault();
    find(byId('search-topic').value, byId('search-id').value);
  });
}

let searches = 0;

async function find(topic, id) {
  const place = byId('found');
  const search = searches += 1;
  // A late answer must not replace that of a later search.
  const answer = (...parts) => { if (search === searches) place.replaceChildren(...parts); };
  try {
    const query = new URLSearchParams({ topic, event_id: id, limit: 1 });
    const { events } = parse(await text(`events?${query}`));
    answer(...(events.length > 0 ? found(events[0]) : [element('p', 'note', 'There is no event with this topic and id.')]));
  } catch (error) {
    const isAnswered = error.status !== undefined;
    answer(element('p', 'note bad', isAnswered ? error.message : 'eventsieve is not responding. Try again.'));
  }
}

function found(event) {
  const received = new Date(event.received_at);
  const ago = duration(Math.max(0, (Date.now() - received) / 1000));
  const facts = element('dl', 'facts');
  for (const [name, value, note] of [
    ['First copy received', event.received_at, `${ago} ago`],
    ['Topic', event.topic],
    ['Event id', event.event_id],
    ['Source', event.source],
    ['Timestamp', event.timestamp],
    ['Cursor', event.cursor],
  ]) {
    const row = element('div');
    const cell = element('dd', '', value);
    if (note) cell.append(' ', element('span', 'note', note));
    row.append(element('dt', '', name), cell);
    facts.append(row);
  }
  const payload = element('pre', '', JSON.stringify(event.payload, null, 2));
  payload.tabIndex = 0;
  return [facts, payload];
}
