// Ten reloads in a row while clients ask without pause: no request fails, and every old worker ends as it should.

import assert from 'node:assert/strict';

import { file } from './lib/files.mjs';
import { homes } from './lib/home.mjs';
import { ask } from './lib/node-ledger.mjs';
import { to } from './lib/node-requests.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

const WORKERS = 4;
const RELOADS = 10;
const AT_ONCE = 16;
const HOMES = homes(60).map(({ address }) => address);

program('ten reloads under load: built-in workers', (place) => reloads(place));
program('ten reloads under load: a program of Node', (place) => reloads(place, '--', 'node', file('node-server.mjs'), 'http:0'));

async function reloads(place, ...command) {
  const haft = await place.haft('-w', `${WORKERS}`, ...command);
  const load = start(haft);
  const served = new Set();
  for (let generation = 1; generation <= RELOADS; generation++) {
    const begun = load.outcomes.length;
    const { status, body } = await haft.post('/reload');
    assert.ok(status < 300, `${status} ${body}`);
    await until(`generation ${generation}`, async () => {
      const { reload, slots } = await haft.status();
      assert.notEqual(reload.state, 'failed', reload.description);
      return reload.state === 'done' && slots.every((slot) => slot.generation === generation);
    }, { within: 60_000 });
    await until('requests since', () => load.outcomes.length >= begun + 100);
    (await haft.status()).slots.forEach(({ pid }) => served.add(pid));
  }
  const outcomes = await load.end();

  const failed = outcomes.filter(({ error, answer }) => error || !answer.includes('"pid"'));
  assert.deepEqual(failed, [], `none of ${outcomes.length} requests fails`);
  await haft.child.heard(/worker has left: ended as asked \(exit code 0\).* slot=\d+ worker=\d+/, WORKERS * RELOADS);
  const ends = haft.child.lines.filter((line) => / worker (has left|died|exited)/.test(line));
  assert.deepEqual(ends.filter((line) => !line.includes('has left: ended as asked (exit code 0)')), [], 'every old worker ends with 0');
  assert.equal(ends.length, WORKERS * RELOADS);
  assert.equal(served.size, WORKERS * RELOADS, 'each reload brought new processes');

  const ledger = await haft.settled(() => outcomes.length);
  assert.deepEqual([ledger.refused, ledger.respawned], [0, 0]);
  place.say(`${RELOADS} reloads of ${WORKERS} workers, ${outcomes.length} requests, 0 failed, ${ends.length} old workers ended with 0`);
  await haft.stop();
}

/** Clients that ask without pause, each time over a connection of its own, until `end` is called. */
function start(haft) {
  const outcomes = [];
  let ended = false;
  const lanes = inTurns(Array(AT_ONCE), AT_ONCE, async (_, lane) => {
    for (let turn = 0; !ended; turn++) {
      const address = HOMES[(lane + turn * AT_ONCE) % HOMES.length];
      outcomes.push(await ask({ ...to(haft.address), path: '/haft/page.json' }, address));
    }
  });
  return {
    outcomes,
    end: async () => {
      ended = true;
      await lanes;
      return outcomes;
    },
  };
}
