// A sustained load: new connections at a steady rate from many addresses, whatever happens to the others.

import { random } from '../e2e/lib/node-ledger.mjs';
import { Places, client } from './clients.mjs';

/** Most clients at once: past this a stuck server is not given more. Fewer than haft lets wait for one slot (1,024). */
const MAX_AT_ONCE = 1_000;
/** How often new clients are sent, in ms, and most of them at one time. */
const EVERY = 10;
const MAX_TOGETHER = 50;

/** Which share of the clients are of which kind, added up. */
const KINDS = [['page', 0.6], ['handshake', 0.85], ['websocket', 1]];

export class Load {
  /** `total` connections to `{ host, port }`, `rate` a second; each outcome goes to `note`. */
  constructor(to, { seed, rate, total, note }) {
    Object.assign(this, { to, rate, total, note });
    this.chance = random(seed);
    this.places = new Places();
    /** Clients that have begun and clients that have ended. */
    this.begun = 0;
    this.ended = 0;
  }

  /** Sends all clients; resolves when each of them has ended. */
  run() {
    return new Promise((resolve, reject) => {
      let last = performance.now();
      let due = 0;
      const timer = setInterval(() => {
        const now = performance.now();
        due = Math.min(due + ((now - last) / 1_000) * this.rate, MAX_TOGETHER);
        last = now;
        for (; due >= 1 && this.begun < this.total && this.begun - this.ended < MAX_AT_ONCE; due--) {
          this.#send().catch(reject);
        }
        if (this.ended < this.total) return;
        clearInterval(timer);
        resolve();
      }, EVERY);
    });
  }

  async #send() {
    this.begun++;
    const [which, where, stay] = [this.chance(), this.chance(), this.chance()];
    const [kind] = KINDS.find(([, share]) => which < share);
    // A place that another process of this host has is left to it.
    for (let outcome; !outcome; ) {
      outcome = await client(kind, this.to, this.places.take(where), stay);
      if (outcome) this.note(outcome);
    }
    this.ended++;
  }
}
