// Waiting for states, always with a deadline; never for a time.

import { setTimeout as pause } from 'node:timers/promises';

/** An error after which no waiting helps. */
export class Final extends Error {}

/** How long a state is waited for. Far more than it ever takes: it bounds a failure, not a success. */
const DEADLINE = 60_000;

/** Looks until `check` gives something truthy, and gives that. A throw of `check` counts as "not yet", but for `Final`. */
export async function until(what, check, { within = DEADLINE, every = 25 } = {}) {
  const deadline = Date.now() + within;
  let last;
  for (;;) {
    try {
      last = await check();
      if (last) return last;
    } catch (error) {
      if (error instanceof Final) throw error;
      last = error;
    }
    if (Date.now() >= deadline) {
      throw new Error(`not within ${within} ms: ${what}; last seen: ${describe(last)}`);
    }
    await pause(every);
  }
}

/** The promise's value, or an error that names what was waited for. */
export async function within(ms, what, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Like `Promise.all(items.map(work))`, with at most `atOnce` of them under way. */
export async function inTurns(items, atOnce, work) {
  const results = new Array(items.length);
  let next = 0;
  const lane = async () => {
    while (next < items.length) {
      const mine = next++;
      results[mine] = await work(items[mine], mine);
    }
  };
  await Promise.all(Array.from({ length: Math.min(atOnce, items.length) }, lane));
  return results;
}

function describe(value) {
  if (value instanceof Error) return value.message;
  return typeof value === 'string' ? value : JSON.stringify(value);
}
