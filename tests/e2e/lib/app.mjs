// What the application of the built-in worker understands: the one place that knows the names of its events.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';

import { fetchText } from './fetch.mjs';

/** The worker of this client's present session: `{ slot, pid }`. The server sends it once, at its beginning. */
export async function who(client) {
  const { slot, pid } = await client.hello();
  assert.ok(Number.isInteger(slot) && Number.isInteger(pid), `slot and pid are numbers, not ${slot} and ${pid}`);
  return { slot, pid };
}

/** The worker that answers a request outside any session from this home, over a TCP connection of its own. */
export async function whoAnswers(url, home) {
  const { slot, pid } = JSON.parse(await fetchText(new URL('/haft/page.json', url), home)).worker;
  return { slot, pid };
}

/** Text, a structure and bytes there and back: as an acknowledgement and as an event, equal to what was sent. */
export async function echoes(client, rounds = 3) {
  for (let round = 0; round < rounds; round++) {
    const bytes = randomBytes(1 + round * 5_000);
    const sent = [`round ${round} äöü €`, { round, nested: [1, null, { bytes }] }, bytes];
    const [event, acknowledged] = await Promise.all([client.next('echo'), client.ask('echo', ...sent)]);
    assert.deepEqual(acknowledged, sent, 'what was acknowledged');
    assert.deepEqual(event, sent, 'what was sent back');
  }
}

/** All of them join one room, then each sends once and all others get it. */
export async function chat(clients, room) {
  for (const client of clients) assert.equal((await asked(client, 'join', { room })).room, room);
  for (const [index, speaker] of clients.entries()) {
    const text = `${room}: message ${index}`;
    const heard = clients.filter((client) => client !== speaker).map((client) => client.next('message'));
    const [told, ...messages] = await Promise.all([asked(speaker, 'message', { room, text }), ...heard]);
    assert.equal(told.members, clients.length, 'the room has all of them');
    for (const [message] of messages) assert.equal(message.text, text);
  }
  for (const client of clients) await asked(client, 'leave', { room });
}

async function asked(client, event, data) {
  const [answer] = await client.ask(event, data);
  assert.equal(answer.ok, true, `${event}: ${answer.error}`);
  return answer;
}
