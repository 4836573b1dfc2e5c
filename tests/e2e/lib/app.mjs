// What the server's application understands: the one place that knows the names of its events.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';

/** Who serves this client: `{ slot, pid }`. */
export async function who(client) {
  const { slot, pid } = await client.ask('whoami');
  assert.ok(Number.isInteger(slot) && Number.isInteger(pid), `slot and pid are numbers, not ${slot} and ${pid}`);
  return { slot, pid };
}

/** Echoes text, a structure and bytes, and checks that each comes back as it was sent. */
export async function echoes(client, rounds = 3) {
  for (let round = 0; round < rounds; round++) {
    const bytes = randomBytes(1 + round * 5_000);
    const sent = [`round ${round} äöü €`, { round, nested: [1, null, { deep: true }] }, bytes];
    const back = await client.ask('echo', ...sent);
    assert.deepEqual(back, sent);
  }
}
