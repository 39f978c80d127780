// The topics and their unique events, sorted and filtered. Up to a thousand rows are kept, and changed only where they differ.

import { count, element, percent, show } from './text.js';

const byId = (id) => document.getElementById(id);
const names = new Intl.Collator('en', { numeric: true });

const ORDERS = {
  name: ([one], [other]) => names.compare(one, other),
  count: ([one, few], [other, many]) => few - many || names.compare(other, one),
};

export class Topics {
  constructor() {
    this.rows = new Map();
    this.order = 'count';
    this.descending = true;
    this.body = document.querySelector('#topics tbody');
    this.filter = byId('topic-filter');
    this.filter.addEventListener('input', () => this.draw());
    for (const button of document.querySelectorAll('[data-sort]')) {
      button.addEventListener('click', () => this.sort(button));
    }
  }

  /** Takes an answer of `/stats`. */
  update(stats) {
    this.stats = stats;
    this.draw();
  }

  sort(button) {
    const order = button.dataset.sort;
    // The first click sorts a column as it is usually wanted: the largest first, or from A to Z.
    this.descending = order === this.order ? !this.descending : order === 'count';
    this.order = order;
    for (const other of document.querySelectorAll('[data-sort]')) {
      const direction = this.descending ? 'descending' : 'ascending';
      other.closest('th').setAttribute('aria-sort', other === button ? direction : 'none');
    }
    this.draw();
  }

  draw() {
    if (!this.stats) return;
    const all = Object.entries(this.stats.topics);
    const wanted = this.filter.value.trim().toLowerCase();
    const shown = all.filter(([topic]) => topic.toLowerCase().includes(wanted)).sort(ORDERS[this.order]);
    if (this.descending) shown.reverse();
    this.place(shown);
    this.note(all.length, shown.length);
    this.suggest(all);
  }

  /** Puts the rows in this order, and does not touch rows that are already in place. */
  place(shown) {
    const { unique_processed: total } = this.stats;
    const stay = new Set(shown.map(([topic]) => topic));
    for (const [topic, row] of this.rows) {
      if (stay.has(topic)) continue;
      row.remove();
      this.rows.delete(topic);
    }
    let next = this.body.firstElementChild;
    for (const [topic, unique] of shown) {
      const row = this.rows.get(topic) ?? this.row(topic);
      const [, number, share] = row.children;
      show(number, count(unique));
      show(share, percent(total > 0 ? unique / total : 0));
      if (row === next) next = next.nextElementSibling;
      else this.body.insertBefore(row, next);
    }
  }

  row(topic) {
    const row = element('tr');
    const name = element('th', '', topic);
    name.scope = 'row';
    name.title = topic;
    row.append(name, element('td'), element('td'));
    this.rows.set(topic, row);
    return row;
  }

  note(listed, shown) {
    const { topic_count: every } = this.stats;
    let text = every === 1 ? '1 topic' : `${count(every)} topics`;
    if (every > listed) text += `, the ${count(listed)} largest are listed`;
    if (shown < listed) text += `, ${count(shown)} match`;
    show(byId('topics-note'), text);
  }

  /** The topics that the search form suggests. */
  suggest(all) {
    const list = byId('known-topics');
    if (list.childElementCount === all.length) return;
    list.replaceChildren(...all.map(([topic]) => {
      const option = element('option');
      option.value = topic;
      return option;
    }));
  }
}
