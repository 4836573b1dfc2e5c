// A worker hangs (it is stopped with SIGSTOP): the clients of the others notice nothing, its own wait and are served when
// it goes on, and haft can be stopped all the same.

import assert from 'node:assert/strict';

import { echoes, who, whoAnswers } from './lib/app.mjs';
import { homes } from './lib/home.mjs';
import { program } from './lib/program.mjs';
import { inTurns } from './lib/wait.mjs';

program('a hanging worker holds up its own clients only', async (place) => {
  const haft = await place.haft('-w', '3', '--drain-timeout', '1s');
  const sources = homes(30);
  const workers = await inTurns(sources, 10, (home) => whoAnswers(haft.url, home));
  const hanging = workers[0];
  const its = sources.filter((_, i) => workers[i].slot === hanging.slot);
  const others = sources.filter((_, i) => workers[i].slot !== hanging.slot);

  process.kill(hanging.pid, 'SIGSTOP');
  place.atEnd(() => resume(hanging.pid));
  const transports = ['polling', 'websocket'];
  const waiting = its.map((home) => place.client(haft.url, home, { transports }));
  await inTurns(others, 10, async (home) => {
    const client = place.client(haft.url, home, { transports });
    await client.connected();
    await client.upgraded();
    await echoes(client);
    assert.deepEqual(client.errors, [], 'no error was reported to the clients of the others');
  });
  assert.ok(waiting.every((client) => client.connects === 0), 'its own clients wait');

  process.kill(hanging.pid, 'SIGCONT');
  await inTurns(waiting, 10, async (client) => {
    await client.connected();
    assert.deepEqual(await who(client), hanging, 'the one that hung serves them after all');
    await echoes(client);
  });
  assert.equal((await haft.ledger()).refused, 0);

  process.kill(hanging.pid, 'SIGSTOP');
  await haft.stop();
  place.say(`${others.length} clients noticed nothing, ${its.length} waited; then it hung again and was ended`);
});

function resume(pid) {
  try {
    process.kill(pid, 'SIGCONT');
  } catch {
    // It has ended, as it should.
  }
}
