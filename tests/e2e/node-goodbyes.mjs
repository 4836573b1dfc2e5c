// When the preload says goodbye to how many: its schedule as a function of the time, without a clock and without haft.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import vm from 'node:vm';

const text = readFileSync(new URL('../../src/node/preload/goodbyes.cjs', import.meta.url), 'utf8');
const due = vm.runInNewContext(`${text}\ndue`, { process });

/** Numbers between 0 and 1, the same in each run. */
function random(seed) {
  let state = seed;
  return () => (state = (state * 1664525 + 1013904223) % 2 ** 32) / 2 ** 32;
}

/** When each of `count` gets its goodbye, where the steps come up to `late` ms late. */
function told(began, over, count, late, next) {
  const moments = [];
  for (let time = began; moments.length < count; time += 10 + next() * late) {
    const now = due(time, began, began + over, count);
    assert.ok(now >= moments.length && now <= count, 'never fewer than before, and never more than there are');
    while (moments.length < now) moments.push(time);
  }
  return moments;
}

test('the goodbyes of a worker begin at once and are evenly spread, also where they are few or very many', () => {
  for (const count of [1, 2, 7, 500, 2000, 100_000]) {
    assert.equal(due(1000, 1000, 21_000, count), 1);
    assert.equal(due(21_000, 1000, 21_000, count), count);
    assert.equal(due(90_000, 1000, 21_000, count), count);
    for (let tenth = 1; tenth < 10; tenth++) {
      const exact = (count * tenth) / 10;
      const now = due(1000 + tenth * 2000, 1000, 21_000, count);
      assert.ok(now >= exact && now <= exact + 1.001, `${now} of ${count} after ${tenth} tenths`);
    }
  }
});

test('without time all get their goodbye at once', () => {
  assert.equal(due(1000, 1000, 1000, 12), 12);
  assert.equal(due(1000, 1000, 900, 12), 12);
});

test('in no second of a reload of four workers end more than 1.5 times as many as on average', () => {
  for (let seed = 1; seed <= 50; seed++) {
    const next = random(seed);
    const all = [];
    // They are replaced one after the other, have unlike numbers of sessions, and their steps come late.
    for (let worker = 0; worker < 4; worker++) {
      const began = worker * 300 * next();
      all.push(...told(began, 20_000, 400 + Math.floor(200 * next()), 200, next));
    }
    const seconds = [];
    for (const at of all) seconds[Math.floor(at / 1000)] = (seconds[Math.floor(at / 1000)] ?? 0) + 1;
    const mean = all.length / (Math.max(...all) / 1000);
    assert.ok(Math.max(...seconds.filter(Boolean)) <= 1.5 * mean, `seed ${seed}: ${seconds}`);
  }
});
