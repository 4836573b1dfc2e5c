// haft below a manager that keeps the listening socket and starts the next master when one is killed, as systemd does with
// a socket unit and Restart=. Clients that come in between wait in the socket's queue.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Haft, alive } from '../e2e/lib/haft.mjs';
import { until } from '../e2e/lib/wait.mjs';

const LISTENER = fileURLToPath(new URL('listener.py', import.meta.url));

export class Masters {
  /** All that have been started; the last one serves. */
  all = [];
  /** What the counters of killed masters said when they were last read: `{ NAME: count }`. */
  #before = {};
  #killed = new Set();
  #replaced = Promise.resolve();

  /** `counters`: the metrics that are added up over all masters. */
  constructor(place, flags, counters) {
    Object.assign(this, { place, flags, counters, socket: join(place.folder, 'listener.sock') });
  }

  /** Resolves when the first master serves. */
  async start() {
    await this.place.child('python3', LISTENER, 'keep', this.socket).heard(/^keeps port (\d+)$/);
    await this.#next();
    return this;
  }

  get current() {
    return this.all.at(-1);
  }

  get child() {
    return this.current.child;
  }

  get address() {
    return this.current.address;
  }

  #next() {
    const under = ['python3', LISTENER, 'take', this.socket];
    const haft = new Haft(this.place, this.flags, { under, listens: false });
    this.all.push(haft);
    return haft.ready();
  }

  /** Kills the master, calls `killed` just before, and resolves when the next one serves with all its workers. */
  kill(killed) {
    this.#replaced = this.#replace(killed);
    return this.#replaced;
  }

  async #replace(killed) {
    this.#before = await this.counts();
    const { child } = this;
    this.#killed.add(this.current);
    killed();
    child.process.kill('SIGKILL');
    await child.exited;
    await this.#next();
  }

  /** What the counters say, over all masters. What one has counted in the moments before it was killed is missing. */
  async counts() {
    const now = await Promise.all(this.counters.map((name) => this.current.total(name)));
    return Object.fromEntries(this.counters.map((name, at) => [name, now[at] + (this.#before[name] ?? 0)]));
  }

  status() {
    return this.#ask((haft) => haft.status());
  }

  post(path) {
    return this.#ask((haft) => haft.post(path));
  }

  ledger() {
    return this.#ask((haft) => haft.ledger());
  }

  /** Asks the master; if that is killed before it answers, the next one, once it serves. */
  async #ask(question) {
    await this.#replaced;
    const asked = this.current;
    try {
      return await question(asked);
    } catch (error) {
      // haft closes a connection on which no request comes in time, as on a machine that is too busy to write it.
      if (!this.#killed.has(asked) && error.code !== 'EPIPE') throw error;
      return this.#ask(question);
    }
  }

  /** Stops the last one as an administrator would, and checks that no worker of any is left. */
  async stop() {
    await this.current.stop();
    const workers = this.all.flatMap((haft) => [...haft.workers]);
    await until('the end of all workers', () => !workers.some(alive));
    assert.ok(this.all.slice(0, -1).every(({ child }) => child.how.signal === 'SIGKILL'), 'no master ended by itself');
  }
}
