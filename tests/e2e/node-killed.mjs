// Workers die by SIGKILL: nothing is lost that they had not confirmed.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';

import { file } from './lib/files.mjs';
import { homes } from './lib/home.mjs';
import { ask, ledgers, random } from './lib/node-ledger.mjs';
import { to } from './lib/node-requests.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

const HOMES = homes(60).map(({ address }) => address);
const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);
const LOAD_SECONDS = 20;

for (const style of ['cluster', 'classic']) {
  program(`style ${style}: clients that wait for stopped workers are served when those are killed`, async (place) => {
    const { haft } = await start(place, style, '0');
    const { slots } = await haft.status();
    const answered = new Set();
    slots.forEach(({ pid }) => process.kill(pid, 'SIGSTOP'));
    const asked = Array.from({ length: 200 }, async (_, index) => {
      const outcome = await ask(to(haft.address), HOMES[index % HOMES.length]);
      if (outcome.answer) answered.add(outcome.answer);
      return outcome;
    });
    await until('all clients to be accepted', async () => (await haft.ledger()).accepted >= 200);
    assert.equal(answered.size, 0, 'nobody is served yet');
    slots.forEach(({ pid }) => process.kill(pid, 'SIGKILL'));

    const failed = (await Promise.all(asked)).filter(({ error }) => error);
    assert.deepEqual(failed, [], '200 of 200 are served');
    for (const { pid } of slots) assert.ok(!answered.has(`${pid}`), 'by replacements');
    const ledger = await haft.settled(() => 200);
    assert.equal(ledger.refused, 0);
    place.say(`${answered.size} replacements served all 200`);
    await haft.stop();
  });

  program(`style ${style}: only what a dead worker had confirmed is lost`, async (place) => {
    const { haft, folder } = await start(place, style, '5');
    const outcomes = await loadWhileKilling(haft);
    const lost = outcomes.filter(({ error }) => error);
    const served = outcomes.length - lost.length;
    place.say(`seed ${SEED}: ${outcomes.length} connections, ${lost.length} lost with ${haft.killed.size} killed workers`);

    // An address and port can occur more than once: then the dead must have had it as often as it was used.
    const books = ledgers(folder);
    const had = new Map();
    for (const from of books.flatMap(({ accepted }) => accepted)) had.set(from, (had.get(from) ?? 0) + 1);
    const used = new Map();
    for (const { from } of outcomes) used.set(from, (used.get(from) ?? 0) + 1);
    const unproven = lost.filter(({ from }) => from && (had.get(from) ?? 0) < used.get(from));
    // A worker that died between confirming a connection and writing it down can account for one.
    const dead = books.filter(({ pid }) => haft.killed.has(pid));
    const gaps = dead.filter(({ accepted, confirmed }) => confirmed > accepted.length).length;
    assert.ok(unproven.length <= gaps, `${unproven.length} lost without proof, ${gaps} workers may account for one each`);
    assert.ok(haft.killed.size >= 5, 'workers were killed');
    assert.ok(served > outcomes.length / 2, 'most were served');

    const ledger = await haft.settled(() => outcomes.filter(({ from }) => from).length);
    assert.equal(ledger.refused, 0, 'nobody was refused');
    await haft.stop();
  });
}

/** Clients wait long for a worker: otherwise the pauses between starts, which grow, would make some clients move. */
async function start(place, style, busy) {
  const folder = join(place.folder, 'ledger');
  mkdirSync(folder);
  const program = ['node', file('node-ledger-server.cjs'), folder, busy, style];
  const haft = await place.haft('-w', '4', '--node-style', style, '--hold-timeout', '60s', '--', ...program);
  return { haft, folder };
}

/** Clients ask without pause for a while; meanwhile one worker after another is killed. Fills `haft.killed`. */
async function loadWhileKilling(haft) {
  haft.killed = new Set();
  const chance = random(SEED);
  const end = Date.now() + LOAD_SECONDS * 1_000;
  const outcomes = [];
  const lanes = inTurns(HOMES.slice(0, 32), 32, async (address) => {
    while (Date.now() < end) outcomes.push(await ask(to(haft.address), address));
  });
  while (Date.now() < end) {
    const { slots } = await haft.status();
    const ready = slots.filter(({ pid, state }) => state === 'ready' && !haft.killed.has(pid));
    const seen = outcomes.length;
    if (ready.length > 0) {
      const { pid } = ready[Math.floor(chance() * ready.length)];
      process.kill(pid, 'SIGKILL');
      haft.killed.add(pid);
    }
    // The next one dies after a number of further outcomes that chance decides, not after a time.
    const more = Math.ceil(chance() * 80);
    await until('more outcomes', () => outcomes.length >= seen + more || Date.now() >= end, { within: 60_000, every: 5 });
  }
  await lanes;
  return outcomes;
}
