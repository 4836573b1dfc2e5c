// The examples for Node do what their READMEs say, with haft and with Node alone.

import assert from 'node:assert/strict';

import { example } from './lib/files.mjs';
import { homes } from './lib/home.mjs';
import { program } from './lib/program.mjs';
import { inTurns, until } from './lib/wait.mjs';

const EXAMPLES = [
  { name: 'node-plain', command: ['env', 'PORT=0', 'node', 'server.js'], flags: [] },
  { name: 'node-classic', command: ['node', 'server.js'], flags: ['--node-style', 'classic'] },
  { name: 'node-classic', command: ['node', 'server.js'], flags: [] },
  {
    name: 'node-socketio-sticky',
    command: ['node', 'worker.js'],
    flags: ['--node-style', 'socket.io-sticky', '--node-serialization', 'advanced'],
    everybody: true,
  },
];

for (const { name, command, flags, everybody = false } of EXAMPLES) {
  program(`${name}: haft ${[...flags, '--', ...command].join(' ')}`, async (place) => {
    example(place, name);
    const haft = await place.haft('-w', '4', '--drain-timeout', '1s', ...flags, '--', ...command);
    await talk(place, haft.url, everybody);
    place.clients.forEach((client) => client.close());
    const ledger = await haft.ledger();
    assert.equal(ledger.refused, 0);
    assert.equal(ledger.respawned, 0);
    await haft.stop();
  });
}

const ALONE = [
  { name: 'node-plain', command: ['server.js'], listens: /listens on port (\d+)/, everybody: true },
  { name: 'node-classic', command: ['server.js'], listens: /the primary listens on port (\d+)/, everybody: false },
  { name: 'node-socketio-sticky', command: ['primary.js'], listens: /the primary listens on port (\d+)/, everybody: true },
];

for (const { name, command, listens, everybody } of ALONE) {
  program(`${name}: node ${command.join(' ')}`, async (place) => {
    example(place, name);
    const node = place.child('env', 'PORT=0', 'WORKERS=3', 'node', ...command);
    const [[, port]] = await node.heard(listens);
    await talk(place, `http://127.0.0.1:${port}`, everybody);
  });
}

/** Clients from 12 addresses, each once upgrading to WebSocket and once polling only. */
async function talk(place, url, everybody) {
  const sources = homes(12).flatMap((home) => [[home, ['polling', 'websocket']], [home, ['polling']]]);
  const clients = await inTurns(sources, 12, async ([home, transports]) => {
    // The workers may not yet take connections when the primary does.
    const client = place.client(url, home, { transports });
    await until('a session', () => client.socket.connected);
    if (transports.length > 1) await client.upgraded();
    return Object.assign(client, await client.hello());
  });
  for (const client of clients) assert.equal(client.connects, 1, 'one session each');

  const speaker = clients[0];
  const listeners = everybody ? clients : clients.filter(({ pid }) => pid === speaker.pid);
  await until('the server to know all of them', async () => (await speaker.ask('message', 'first'))[0].heard === listeners.length);
  const heard = listeners.map((client) => client.next('message'));
  await speaker.ask('message', 'second');
  for (const [text] of await Promise.all(heard)) assert.match(text, /first|second/);
}
