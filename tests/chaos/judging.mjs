// The judge itself: a ledger that would pass everything proves nothing.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { spawn } from 'node:child_process';
import { test } from 'node:test';

import { Ledger } from './ledger.mjs';

const NOW = Date.now();
const stamp = (after = 0) => new Date(NOW + after).toISOString();
const delivered = (worker = 1, from = 'a:1') => `${stamp()} TRACE delivered a connection client=${from} slot=0 worker=${worker}`;
const refused = (reason) => `${stamp(1_000)} DEBUG refused a connection client=a:1 reason="${reason}"`;
const ready = (worker, pid) => `${stamp()}  INFO worker is ready slot=0 worker=${worker} pid=${pid}`;
const left = (worker, how) => `${stamp()}  INFO worker has left: ${how} slot=0 worker=${worker}`;
const hung = `${stamp(10)} ERROR the worker has acknowledged nothing for 1s: it hangs; it is killed and replaced slot=0 worker=1 in_flight=3`;
const served = { from: 'a:1', kind: 'page', connected: true, begun: NOW, at: NOW + 5, pid: 77 };
const cut = { ...served, pid: undefined, at: NOW + 20, failure: 'read ECONNRESET', cut: true };

/** What a ledger finds that has read these lines, heard of these clients, and then read those lines. */
function found(lines, clients, { before = () => {}, afterwards = [], how } = {}) {
  const ledger = new Ledger(how);
  before(ledger);
  [ready(1, 77), ...lines].forEach((line) => ledger.read(line));
  clients.forEach((outcome) => ledger.client(outcome));
  afterwards.forEach((line) => ledger.read(line));
  return ledger.verdict().wrong;
}

/** The master is killed after so many ms. */
const orphaned = (after, how) => ({ how, before: (ledger) => at(NOW + after, () => ledger.masterKilled()) });
const starved = { before: (ledger) => ledger.shortage() };

/** Does something as if it were another time of day. */
function at(time, what) {
  const { now } = Date;
  Date.now = () => time;
  what();
  Date.now = now;
}

test('the judge lets pass what is in order', () => {
  assert.deepEqual(found([delivered()], [served]), []);
  assert.deepEqual(found([delivered(), hung], [cut]), []);
  assert.deepEqual(found([refused('no_descriptor')], [cut], starved), []);
  assert.deepEqual(found([refused('no_worker')], [{ ...cut, begun: NOW - 1_500, at: NOW + 1_010 }]), []);
  const sentAway = { ...cut, cut: false, sentAway: true };
  assert.deepEqual(found([delivered(), left(1, 'ended as asked (exit code 0)')], [sentAway]), []);
  assert.deepEqual(found([], [cut, { ...served, from: 'a:2' }], orphaned(10)), []);
  assert.deepEqual(found([delivered()], [sentAway], orphaned(10)), []);
  assert.deepEqual(found([delivered()], [cut], orphaned(10, { exitsWithMaster: true })), []);
});

const WRONG = [
  ['lost silently', /no worker had acknowledged it/, [], [cut]],
  ['cut by a worker that lives', /which was not killed/, [delivered()], [cut]],
  ['cut before its worker was killed', /before 77 was killed/, [delivered(), hung], [{ ...cut, at: NOW + 3 }]],
  ['without an answer', /does not explain/, [delivered(), hung], [{ ...cut, cut: false, failure: 'no answer' }]],
  ['refused for another reason', /refused for no_worker/, [refused('no_worker')], [cut], starved],
  ['refused without a shortage', /refused for no_descriptor/, [refused('no_descriptor')], [cut]],
  ['settled twice', /settled twice/, [delivered(), delivered()], [served]],
  ['settled again later', /a second time/, [delivered()], [served], { afterwards: [delivered()] }],
  ['served by another', /delivered to 77 and served by 78/, [delivered()], [{ ...served, pid: 78 }]],
  ['served and never delivered', /never delivered/, [], [served]],
  ['sent away by a worker that stays', /was not to leave/, [delivered()], [{ ...cut, sentAway: true }]],
  ['cut before its master was killed', /no worker had acknowledged it/, [], [{ ...cut, at: NOW + 3 }], orphaned(2_000)],
  ['begun after its master was killed', /no worker had acknowledged it/, [], [{ ...cut, begun: NOW + 15 }], orphaned(10)],
  ['cut long after its master was killed', /no worker had acknowledged it/, [], [{ ...cut, at: NOW + 9_000 }], orphaned(10)],
  ['cut by a worker that outlives its master', /which was not killed/, [delivered()], [cut], orphaned(10)],
  ['cut by a worker before its master was killed', /which was not killed/, [delivered()], [cut], orphaned(30, { exitsWithMaster: true })],
  ['served and never delivered, long before a death', /never delivered/, [], [served], orphaned(9_000)],
  ['a worker that ends by itself', /not killed and yet left/, [delivered(), left(1, 'exit code 1')], [served]],
  ['a bug that haft reports of itself', /this is a bug/, [`${stamp()} ERROR a connection was lost: this is a bug in haft`], []],
];

for (const [what, pattern, ...told] of WRONG) {
  test(`the judge finds: ${what}`, () => {
    const violations = found(...told);
    assert.equal(violations.length, 1, violations.join('\n'));
    assert.match(violations[0], pattern);
  });
}

test('the judge finds: acknowledged by a worker that had been stopped before', async () => {
  const child = spawn('sleep', ['1000']);
  const ledger = new Ledger();
  ledger.read(ready(1, child.pid));
  ledger.stop(child.pid);
  ledger.kill(child.pid);
  await once(child, 'exit');
  ledger.read(delivered());
  const later = Date.now() + 1_000;
  ledger.client({ ...cut, begun: later, at: later });
  assert.match(ledger.verdict().wrong.join('\n'), /had been stopped before it came/);
});
