// The chat page as a person has it: two tabs of a real browser talk, see which worker serves them, and see a worker
// die.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { tmpdir } from 'node:os';

import { Browser } from './lib/browser.mjs';
import { program } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

program('two pages talk, show their worker, and come back after a death', async (place) => {
  const haft = await place.haft('-w', '3');
  const browser = await Browser.start(place);
  const [one, other] = [await browser.open(haft.url), await browser.open(haft.url)];

  // Both tabs have one address, so one slot; and the page shows the right one.
  const shown = await one.connected();
  const { slots } = await haft.status();
  assert.equal(slots[shown.slot].pid, shown.pid, 'the process that fills the slot');
  const beside = await other.connected();
  assert.deepEqual([beside.slot, beside.pid], [shown.slot, shown.pid], 'the other tab is served by the same worker');
  assert.notEqual(beside.sid, shown.sid, 'in a session of its own');

  // The upgrade from polling is visible.
  for (const page of [one, other]) {
    await page.reads('#transport li.now', /WebSocket/);
    await page.reads('#transport li.past', /polling/);
    await page.reads('#timeline', /Upgraded to WebSocket/);
  }

  // They talk, in both directions, and the sender learns that it arrived.
  await one.joins('the lounge', 1);
  await other.joins('the lounge', 2);
  await one.says('Good evening! ✓');
  await other.reads('#messages', /Good evening! ✓/);
  await one.reads('#messages', /acknowledged · to 1 other/);
  await other.says('<b>And to you.</b>');
  await one.reads('#messages', /<b>And to you\.<\/b>/);

  process.kill(shown.pid, 'SIGKILL');
  for (const page of [one, other]) {
    await page.reads('#timeline', /Connection lost/);
    await page.reads('#timeline', /Back at the same slot, served by a new process/);
  }
  const back = await one.connected();
  assert.equal(back.slot, shown.slot, 'the same slot');
  assert.notEqual(back.pid, shown.pid, 'another process');
  assert.notEqual(back.sid, shown.sid, 'another session');
  await until('the status to name the new process', async () => (await haft.status()).slots[back.slot].pid === back.pid);

  // Both have returned to their room by themselves.
  await one.reads('#members', /^2 members/);
  await one.says('Still here?');
  await other.reads('#messages', /Still here\?/);

  const picture = join(tmpdir(), 'haft-page.png');
  await other.picture(picture);
  place.say(`slot ${shown.slot}: pid ${shown.pid}, then ${back.pid}; the picture is in ${picture}`);
  assert.deepEqual(browser.complaints, [], 'nothing in the console but the lost connection');
  await browser.stop();
  await haft.stop();
});
