// Figures, times and payloads as people read them, and elements that hold nothing but text.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat('en-GB', {
  hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3,
});

/** 12345 as `12 345`, with narrow blanks that do not break. */
export function count(number) {
  return whole.format(number).replaceAll(',', '\u202f');
}

/** A number with so many digits behind the point. */
export function fixed(number, digits) {
  return number.toFixed(digits);
}

/** Events a second: small ones with a digit behind the point. */
export function rate(perSecond) {
  return perSecond > 0 && perSecond < 10 ? fixed(perSecond, 1) : count(perSecond);
}

/** A part of 1 as `30.0 %`. */
export function percent(part) {
  return `${fixed(part * 100, 1)}\u202f%`;
}

/** Seconds as the largest two units: `45 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`. */
export function duration(seconds) {
  const s = Math.floor(seconds);
  const units = [['d', 86400], ['h', 3600], ['min', 60], ['s', 1]];
  const first = units.findIndex(([, size]) => s >= size);
  if (first < 0) return '0\u202fs';
  const [name, size] = units[first];
  const next = units[first + 1];
  const rest = next ? Math.floor((s % size) / next[1]) : 0;
  const words = `${Math.floor(s / size)}\u202f${name}`;
  return rest > 0 ? `${words} ${rest}\u202f${next[0]}` : words;
}

/** A moment as the time of day here, to the millisecond. */
export function timeOfDay(moment) {
  return clock.format(moment);
}

/** JSON whose numbers keep every digit that was sent, where the browser can (else they are rounded to doubles). */
export function parse(json) {
  return JSON.parse(json, (_, value, context) =>
    (typeof value === 'number' && JSON.rawJSON && context?.source ? JSON.rawJSON(context.source) : value));
}

/** An element with a class and a text. What clients sent is only ever put in so: it stays text. */
export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Shows a text where it is not shown already. */
export function show(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
