// Each of 20,000 connections arrives as the one it is, though large messages go to the workers between them.

import assert from 'node:assert/strict';
import net from 'node:net';

import { file } from './lib/files.mjs';
import { homes } from './lib/home.mjs';
import { to } from './lib/node-requests.mjs';
import { versions } from './lib/node-versions.mjs';
import { program } from './lib/program.mjs';
import { inTurns } from './lib/wait.mjs';

const CONNECTIONS = 20_000;
const WORKERS = 3;
/** The default, more, and one by one. */
const IN_FLIGHT = [64, 256, 64, 1];
const HOMES = homes(60).map(({ address }) => address);
const SEED = Number(process.env.SEED ?? Date.now() % 1_000_000);

for (const [index, { name, path }] of versions.entries()) {
  const inFlight = IN_FLIGHT[index % IN_FLIGHT.length];
  program(`${name}: no connection is taken for another, ${inFlight} at once under way`, async (place) => {
    const haft = await place.haft('-w', `${WORKERS}`, '--max-in-flight', `${inFlight}`, '--', path, file('node-pairing-server.cjs'), `${SEED}`);
    const options = to(haft.address);
    const wrong = [];
    await inTurns(Array.from({ length: CONNECTIONS }, (_, index) => HOMES[index % HOMES.length]), 128, async (home) => {
      const { mine, told } = await greet(options, home);
      if (mine !== told) wrong.push(`${mine} was told ${told}`);
    });
    assert.deepEqual(wrong, []);

    const { slots } = await haft.status();
    slots.forEach(({ pid }) => process.kill(pid, 'SIGUSR2'));
    const counts = await haft.child.heard(/^messages (\d+)$/, WORKERS);
    const messages = counts.reduce((sum, [, count]) => sum + Number(count), 0);
    assert.ok(messages > CONNECTIONS, 'there were messages between the connections');
    assert.ok(!haft.child.lines.includes('corrupt'), 'every message arrived whole');
    const ledger = await haft.settled(() => CONNECTIONS);
    assert.equal(ledger.respawned, 0, 'no worker died of it');
    place.say(`seed ${SEED}: ${CONNECTIONS} connections and ${messages} messages`);
    await haft.stop();
  });
}

/** One connection: what its client's end is, and what the worker says of it. */
function greet(options, localAddress) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ ...options, localAddress });
    let mine;
    let told = '';
    socket.setEncoding('utf8').setTimeout(60_000, () => socket.destroy(new Error(`no answer for ${mine}`)));
    socket.on('connect', () => (mine = `${socket.localAddress}:${socket.localPort}`));
    socket.on('data', (part) => (told += part));
    socket.on('error', reject);
    socket.on('end', () => resolve({ mine, told }));
  });
}
