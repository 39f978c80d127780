// Numbers, times and payloads for people, and elements that contain only text.

const whole = new Intl.NumberFormat('en', { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat('en-GB', {
  hour: '2-digit', minute: '2-digit', second: '2-digit', fractionalSecondDigits: 3,
});

/** 12345 as `12 345`, with narrow no-break spaces. */
export function count(number) {
  return whole.format(number).replaceAll(',', '\u202f');
}

/** A number with this many decimal places. */
export function fixed(number, digits) {
  return number.toFixed(digits);
}

/** Events per second: a low rate with one decimal place. */
export function rate(perSecond) {
  return perSecond > 0 && perSecond < 10 ? fixed(perSecond, 1) : count(perSecond);
}

/** A fraction as `30.0 %`. */
export function percent(part) {
  return `${fixed(part * 100, 1)}\u202f%`;
}

/** Seconds in the largest two units: `45 s`, `3 min 20 s`, `2 h 5 min`, `4 d 3 h`. */
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

/** The local time of day, to the millisecond. */
export function timeOfDay(moment) {
  return clock.format(moment);
}

/** Parses JSON so that numbers keep all digits, if the browser supports it (else they are rounded to doubles). */
export function parse(json) {
  return JSON.parse(json, (_, value, context) =>
    (typeof value === 'number' && JSON.rawJSON && context?.source ? JSON.rawJSON(context.source) : value));
}

/** An element with a class and a text. Everything that clients sent is inserted with this function, so it stays text. */
export function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

/** Sets the text of an element, if it differs. */
export function show(target, text) {
  if (target.textContent !== text) target.textContent = text;
}
