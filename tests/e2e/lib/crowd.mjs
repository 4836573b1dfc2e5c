// Many clients at once, and the conversation that each of them has: shared by all tests of stickiness.

import assert from 'node:assert/strict';

import { chat, echoes, who, whoAnswers } from './app.mjs';
import { homes, opened } from './home.mjs';
import { inTurns } from './wait.mjs';

/** How many clients do the same thing at the same time. */
const AT_ONCE = 40;
/** How many there are: CLIENTS sets another number. */
const CLIENTS = Number(process.env.CLIENTS ?? 240);

/**
 * Many clients, as many from each of 60 addresses. Half of them, and half of each address, upgrade from polling to WebSocket;
 * with `pollingOnly` none does. First all of them arrive, then, with all sessions open, all of them talk.
 *
 * Gives `{ url, homes, members }`; a member has `home`, `client`, `upgrades`, and either `worker` (`{ slot, pid }`, the same
 * from its first to its last message) or `failure` (the first thing that went wrong, as text).
 */
export async function crowd(place, url, { addresses = 60, each = Math.ceil(CLIENTS / 60), pollingOnly = false, options = {} } = {}) {
  const sources = homes(addresses);
  const members = Array.from({ length: addresses * each }, (_, i) => ({
    home: sources[i % addresses],
    upgrades: !pollingOnly && Math.floor(i / addresses) % 2 === 0,
  }));
  await inTurns(members, AT_ONCE, guarded(async (member) => {
    const transports = member.upgrades ? ['polling', 'websocket'] : ['polling'];
    member.client = place.client(url, member.home, { transports, ...options });
    await arrive(member);
  }));
  await inTurns(members, AT_ONCE, guarded(talk));
  return { url, homes: sources, members };
}

async function arrive(member) {
  await member.client.connected();
  member.worker = await who(member.client);
  const { client } = await member.client.hello();
  assert.equal(client.slice(0, client.lastIndexOf(':')), member.home.address, 'the server sees where it comes from');
  await echoes(member.client, 1);
  if (member.upgrades) await member.client.upgraded();
}

async function talk({ client, upgrades, worker }) {
  await echoes(client, 3);
  assert.equal(client.transport, upgrades ? 'websocket' : 'polling', 'the transport');
  assert.deepEqual(await who(client), worker, 'the same worker from the first to the last message');
}

/** The step for a member, unless an earlier one failed; an error becomes its `failure`. */
function guarded(step) {
  return async (member) => {
    if (member.failure) return;
    try {
      await step(member);
    } catch (error) {
      // What the client itself reported says more than what became of it.
      member.failure = member.client.errors[0] ?? error.message;
    }
  };
}

/** How often each failure occurred, as text: `231 x 400 Session ID unknown`. */
export function failures(members) {
  const counts = new Map();
  for (const { failure } of members) if (failure) counts.set(failure, (counts.get(failure) ?? 0) + 1);
  return [...counts].map(([failure, count]) => `${count} x ${failure}`).join('; ') || 'none';
}

/** The workers that serve these members, as sorted unique `slot pid` texts. */
export function workers(members) {
  return [...new Set(members.map(({ worker }) => `slot ${worker.slot} pid ${worker.pid}`))].sort();
}

/**
 * Asserts that all were served without one error; each address by one worker, inside and outside sessions; and that
 * those of one address, which are with one worker, can talk to each other.
 */
export async function assertAllStuck({ url, homes: sources, members }) {
  assert.equal(failures(members), 'none');
  await inTurns(sources, 20, async (home) => {
    const neighbours = members.filter((member) => member.home === home);
    const served = workers(neighbours);
    assert.equal(served.length, 1, `${home.address} is served by one worker, not by ${served.join(' and ')}`);
    assert.deepEqual(await whoAnswers(url, home), neighbours[0].worker, `a request from ${home.address} alone`);
    await chat(neighbours.map(({ client }) => client), `room of ${home.address}`);
  });
  for (const { client } of members) {
    assert.deepEqual(client.errors, [], 'no error was reported to a client');
    assert.deepEqual(client.disconnects, [], 'no session ended');
    assert.equal(client.connects, 1, 'one session each');
  }
}

/**
 * Sends a crowd to haft, asserts that all are served and stay on their worker, that every worker has a share, and that the
 * books agree with what the clients opened; then stops haft. `byKernel`: it is the kernel that gave each connection to its
 * worker, and haft saw none.
 */
export async function assertAllServed(place, haft, { byKernel = false, ...options } = {}) {
  const all = await crowd(place, haft.url, options);
  await assertAllStuck(all);
  const { homes: sources, members } = all;

  const { slots } = await haft.status();
  const known = slots.map(({ slot, pid }) => `slot ${slot} pid ${pid}`).sort();
  assert.deepEqual(workers(members), known, 'each of the workers has clients, and is who it says it is');

  members.forEach(({ client }) => client.close());
  const ledger = await haft.settled(() => (byKernel ? 0 : opened(sources)));
  assert.equal(ledger.refused, 0, 'none was refused');
  assert.equal(ledger.respawned, 0, 'no worker died');
  const way = byKernel ? 'given to the workers by the kernel' : 'delivered';
  place.say(`${members.length} clients, ${opened(sources)} connections ${way}, 0 refused`);
  await haft.stop();
}

/** Asserts that more than half failed for exactly the one reason that lack of stickiness has. */
export function assertMostUnknown(members) {
  const unknown = members.filter(({ failure }) => failure === '400 Session ID unknown').length;
  assert.ok(unknown > members.length / 2, `of ${members.length} only ${unknown} failed so: ${failures(members)}`);
}
