// Numbered messages that clients send each other without pause: each must arrive once, and in order.

import assert from 'node:assert/strict';

import { Final, inTurns, until } from './wait.mjs';

/** How many messages are under way at the same time. */
const AT_ONCE = 12;

/** Messages from one client to another. */
export class Route {
  /** `send(number)` resolves when the server has the message. */
  constructor(send) {
    this.send = send;
    this.sent = 0;
    /** The numbers that arrived, in the order in which they did. */
    this.arrived = [];
  }
}

/** The messages on all routes, in turn, from `start` to `end` or to the first that fails. */
export class Exchange {
  /** At the end of the test it ends too, whatever happened. */
  constructor(place) {
    place.atEnd(() => (this.ended = true));
    this.routes = [];
    this.failures = [];
    this.ended = false;
  }

  add(...routes) {
    this.routes.push(...routes);
  }

  start() {
    let turn = 0;
    const busy = new Set();
    this.lanes = inTurns(Array(AT_ONCE), AT_ONCE, async () => {
      while (!this.ended) {
        const route = this.routes[turn++ % this.routes.length];
        if (busy.has(route)) {
          // It comes next round; there are more routes than lanes.
          await new Promise(setImmediate);
          continue;
        }
        busy.add(route);
        route.sent++;
        await route.send(route.sent).catch((error) => {
          this.failures.push(error.message);
          this.ended = true;
        });
        busy.delete(route);
      }
    });
  }

  /** Waits until on each route a message has arrived that was sent from now on. */
  async goesOn(what) {
    const before = this.routes.map(({ sent }) => sent);
    await until(`messages on all routes ${what}`, () => {
      if (this.failures.length > 0) throw new Final(this.failures.join('; '));
      return before.every((sent, index) => this.routes[index].arrived.at(-1) > sent);
    }, { within: 60_000 });
  }

  /** No more messages; asserts that all that were sent have arrived, each once and in order. Yields how many. */
  async end() {
    this.ended = true;
    await this.lanes;
    assert.deepEqual(this.failures, []);
    await until('the last messages to arrive', () => this.routes.every(({ sent, arrived }) => arrived.length >= sent));
    for (const { sent, arrived } of this.routes) {
      assert.deepEqual(arrived, Array.from({ length: sent }, (_, index) => index + 1), 'each number once, in order');
    }
    return this.routes.reduce((sum, { sent }) => sum + sent, 0);
  }
}
