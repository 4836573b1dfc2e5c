// The page of the admin listener as an operator has it: live rows, charts and events in a real browser; each change asks
// first and needs the token; it stays whole with 64 slots, in the dark and on a phone.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { Browser } from './lib/browser.mjs';
import { Haft } from './lib/haft.mjs';
import { program } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const TOKEN = 'a-token-of-this-test-0123456789';
const picture = (name) => join(tmpdir(), `haft-admin-${name}.png`);

/** haft with a TCP admin listener beside the control socket that every haft has. Yields it and the page's address. */
async function started(place, ...flags) {
  const file = join(place.folder, 'token');
  writeFileSync(file, `${TOKEN}\n`, { mode: 0o600 });
  const admin = ['--admin', '127.0.0.1:0', '--admin-token-file', file, '--name', 'page'];
  const haft = new Haft(place, [...admin, ...flags], { under: ['env', '-u', 'RUNTIME_DIRECTORY', `XDG_RUNTIME_DIR=${place.folder}`] });
  haft.admin = join(place.folder, 'haft', 'page.sock');
  await haft.ready();
  const [[, url]] = await haft.child.heard(/metrics and status on (http:\S+)/);
  return { haft, url };
}

/** A tab with the page, live; it notes the addresses that it asks. */
async function opened(browser, url, asked = new Set()) {
  browser.context.on('request', (request) => asked.add(new URL(request.url()).origin));
  const tab = await browser.open(url);
  await tab.reads('#state', /^live$/);
  return tab;
}

/** Whether nothing sticks out at the side. */
const fits = (tab) => tab.page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth);

program('the page shows what happens, and changes nothing without a yes and the token', async (place) => {
  const { haft, url } = await started(place, '-w', '3');
  const browser = await Browser.start(place);
  const asked = new Set();
  const tab = await opened(browser, url, asked);
  const { page } = tab;

  const { slots } = await haft.status();
  for (const { slot, pid } of slots) await tab.reads('#rows', new RegExp(`(^|\\s)${slot}\\s+ready\\s+${pid}\\s`));
  await tab.reads('#count', /^3 slots$/);
  await tab.reads('#refused', /No connection was refused/);

  // What happens is seen: a death, and its worker's successor.
  process.kill(slots[1].pid, 'SIGKILL');
  await tab.reads('#events', /Slot 1: its worker died \(signal SIGKILL\) and was replaced/);
  await until('the new process', async () => {
    const pid = (await haft.status()).slots[1].pid;
    return pid && pid !== slots[1].pid && (await page.locator('#rows').innerText()).includes(String(pid));
  });

  // A no is a no.
  await page.click('#reload');
  await tab.reads('#ask-text', /^Reload\?$/);
  await page.click('#ask-no');
  assert.equal((await haft.status()).generation, 0);

  // A yes needs the token: a wrong one is refused, the right one works, and is not asked for again.
  await page.click('#reload');
  await page.click('#ask-yes');
  await page.fill('#token-input', 'wrong');
  await page.click('#token-form button[value=yes]');
  await tab.reads('#notices', /not the token/);
  assert.equal((await haft.status()).generation, 0);
  await page.click('#unlock');
  await page.fill('#token-input', TOKEN);
  await page.click('#token-form button[value=yes]');
  await page.click('#reload');
  await page.click('#ask-yes');
  await tab.reads('#notices', /reload to generation 1 has begun/);
  await tab.reads('#events', /Slot 2: worker \d+ of generation 1/);

  // A slot alone: its figures, its last lines, and draining it.
  await page.fill('#filter', String((await haft.status()).slots[1].pid));
  await until('one row', async () => (await page.locator('#rows tr').count()) === 1);
  await page.locator('#rows tr').first().click();
  await tab.reads('#detail-title', /^Slot 1: ready/);
  await tab.reads('#detail-figures', /loop delay p99/i);
  await tab.reads('#detail-lines', /\S/);
  await page.screenshot({ path: picture('detail') });
  await page.click('#detail-actions button:has-text("Drain")');
  await tab.reads('#ask-text', /^Drain slot 1\?$/);
  await page.click('#ask-yes');
  await until('it is drained', async () => (await haft.status()).slots[1].drained);
  await page.click('#detail-close');
  await page.fill('#filter', '');
  await tab.reads('#rows', /ready, drained/);
  await page.screenshot({ path: picture('light'), fullPage: true });

  // Sorted by what is asked for.
  await page.click('#headings button:has-text("Restarts")');
  await until('the slot that has lost a worker comes first', async () => {
    return (await page.locator('#rows tr').first().innerText()).startsWith('1');
  });

  assert.deepEqual([...asked], [new URL(url).origin], 'nobody else is asked for anything');
  assert.deepEqual(browser.complaints.filter((text) => !/status of 401/.test(text)), []);
  const ran = await page.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'window.ran = true';
    document.body.append(script);
    return window.ran ?? false;
  });
  assert.equal(ran, false, 'no script but the page’s own runs');

  // A client that does not ask for HTML gets text, and a page that has lost haft shows that.
  const { status, body } = await haft.get('/');
  assert.deepEqual([status, body.includes('/metrics')], [200, true]);
  await haft.stop();
  await tab.reads('#state', /no answer/);
  await browser.stop();
});

program('with 64 slots it stays whole, in the light, in the dark and on a phone', async (place) => {
  const { haft, url } = await started(place, '-w', '64');
  const browser = await Browser.start(place);
  const tab = await opened(browser, url);
  const { page } = tab;
  const rows = () => page.locator('#rows tr').count();
  await until('64 rows', async () => (await rows()) === 64);
  process.kill((await haft.status()).slots[17].pid, 'SIGKILL');
  await tab.reads('#events', /Slot 17: its worker died/);
  for (const [name, width, height, colorScheme] of [
    ['64-slots', 1440, 1000, 'light'],
    ['64-slots-dark', 1180, 900, 'dark'],
    ['64-slots-tablet', 820, 1100, 'light'],
    ['64-slots-phone', 390, 844, 'light'],
    ['64-slots-phone-dark', 390, 844, 'dark'],
  ]) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme });
    await until(`it fits into ${width} pixels`, () => fits(tab));
    await page.screenshot({ path: picture(name) });
  }
  await page.fill('#filter', 'sigkill');
  await until('one row', async () => (await rows()) === 1);
  assert.deepEqual(browser.complaints, []);
  await browser.stop();
  await haft.stop();
});
