// Asking the service. Paths are relative to the page, so that it works under any prefix.

/** Longer than any healthy answer takes, and shorter than people wait. */
const PATIENCE_MS = 4000;

/** An answer that is not the one hoped for; its message is for people. */
export class Refusal extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The text of an answer with 200 or one of `others`. Throws a `Refusal`, or what `fetch` throws when nobody answers. */
export async function text(path, others = []) {
  const answer = await fetch(path, {
    headers: { accept: 'application/json' },
    cache: 'no-store',
    signal: AbortSignal.timeout(PATIENCE_MS),
  });
  const body = await answer.text();
  if (answer.ok || others.includes(answer.status)) return body;
  throw new Refusal(answer.status, sentence(body) ?? `The service answered ${answer.status}.`);
}

/** The same as JSON. */
export async function json(path, others) {
  return JSON.parse(await text(path, others));
}

/** What an error document says: a problem's detail, or the first fault of a 422. */
function sentence(body) {
  try {
    const { detail } = JSON.parse(body);
    return typeof detail === 'string' ? detail : detail?.[0]?.msg;
  } catch {
    return undefined;
  }
}
