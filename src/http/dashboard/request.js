// Requests to the service. Paths are relative to the page, so that it works under any prefix.

/** Longer than any healthy answer takes, and shorter than people wait. */
const TIMEOUT_MS = 4000;

/** An answer with an unexpected status; its message is for people. */
export class HttpError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The body of an answer with a 2xx status or one of `others`. Throws an `HttpError`, or what `fetch` throws without an answer. */
export async function text(path, others = []) {
  const answer = await fetch(path, {
    headers: { accept: 'application/json' },
    cache: 'no-store',
    signal: AbortSignal.timeout(TIMEOUT_MS),
  });
  const body = await answer.text();
  if (answer.ok || others.includes(answer.status)) return body;
  throw new HttpError(answer.status, sentence(body) ?? `The service answered ${answer.status}.`);
}

/** The body of an answer as JSON. */
export async function json(path, others) {
  return JSON.parse(await text(path, others));
}

/** The explanation of an error answer: the detail of a problem, or the first validation error of a 422. */
function sentence(body) {
  try {
    const { detail } = JSON.parse(body);
    return typeof detail === 'string' ? detail : detail?.[0]?.msg;
  } catch {
    return undefined;
  }
}
