// haft as a child process, and what it reports over its admin socket.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import http from 'node:http';
import { fileURLToPath } from 'node:url';
import { join } from 'node:path';

import { byLabel, parse, total } from './metrics.mjs';
import { until, within } from './wait.mjs';

/** The binary under test: $HAFT, or the release build of this repository. */
export const BINARY = process.env.HAFT ?? fileURLToPath(new URL('../../../target/release/haft', import.meta.url));

export class Haft {
  /**
   * Starts it; `flags` replace those that every test needs, and add to them. A short drain keeps the tests short.
   * `under`: the words that run it, such as `env A=1`. `listens`: whether it has a listener without being given one.
   */
  constructor(place, flags, { under = [], listens = true } = {}) {
    if (!existsSync(BINARY)) throw new Error(`${BINARY} is missing: cargo build --release makes it`);
    this.admin = join(place.folder, `admin-${place.children?.length ?? 0}.sock`);
    const listen = listens ? { '-l': '127.0.0.1:0' } : {};
    const defaults = { ...listen, '--drain-timeout': '5s', '--admin': `unix:${this.admin}` };
    const missing = Object.entries(defaults).filter(([flag]) => !flags.includes(flag));
    // Tests compare what programs write as it is.
    const marks = flags.some((flag) => String(flag).startsWith('--prefix-output')) ? [] : ['--prefix-output=false'];
    this.child = place.child(...under, BINARY, ...missing.flat(), ...marks, ...flags);
    /** Every worker that was ever seen in the status. */
    this.workers = new Set();
  }

  /** Waits until it listens and all its workers are ready. */
  async ready() {
    const [[, port]] = await this.child.heard(/\blistening on (?:http:\/\/)?\S*:(\d+)/);
    await until('a 200 from /readyz', async () => (await this.get('/readyz')).status === 200);
    await until('all workers to be ready', async () => {
      const { slots } = await this.status();
      return slots.every(({ state }) => state === 'ready') || Promise.reject(new Error(JSON.stringify(slots)));
    });
    const { listen } = await this.status();
    // The log's line is for people: it names localhost where haft listens on every interface.
    this.address = listen.find((address) => address.endsWith(`:${port}`));
    assert.ok(this.address, `/status lists port ${port} under "listen"`);
    this.url = `http://${this.address}`;
  }

  /** One question to the admin socket: `{ status, body }`. */
  get(path) {
    return this.#ask('GET', path);
  }

  /** One order to the admin socket, such as `/reload`: `{ status, body }`. */
  post(path) {
    return this.#ask('POST', path);
  }

  async #ask(method, path) {
    this.child.mustRun();
    const answer = new Promise((resolve, reject) => {
      const request = http.request({ socketPath: this.admin, method, path, agent: false }, (response) => {
        let body = '';
        response.setEncoding('utf8');
        response.on('data', (part) => (body += part));
        response.on('end', () => resolve({ status: response.statusCode, body }));
        response.on('error', reject);
      });
      request.on('error', reject).end();
    });
    return within(60_000, `an answer to ${path}`, answer);
  }

  /** `/status` as an object. */
  async status() {
    const { status, body } = await this.get('/status');
    assert.equal(status, 200, '/status answers with 200');
    const seen = JSON.parse(body);
    for (const { pid } of seen.slots) if (pid) this.workers.add(pid);
    return seen;
  }

  /** The samples of one scrape. */
  async samples() {
    const { status, body } = await this.get('/metrics');
    assert.equal(status, 200, '/metrics answers with 200');
    return parse(body);
  }

  /** The sum of one metric. */
  async total(name) {
    return total(await this.samples(), name);
  }

  /** The values of one metric by one label. */
  async counts(name, label) {
    return byLabel(await this.samples(), name, label);
  }

  /** How many connections went where they did for each reason: `{ address, session, lost_session, opening, load }`. */
  routed() {
    return this.counts('haft_connections_routed_total', 'by');
  }

  /**
   * The counts of one scrape: `{ accepted, delivered, refused, inFlight, respawned }`. That nothing is lost is a
   * promise for every moment, so it is asserted at every scrape.
   */
  async ledger() {
    const samples = await this.samples();
    const ledger = {
      accepted: total(samples, 'haft_connections_accepted_total'),
      delivered: total(samples, 'haft_connections_delivered_total'),
      refused: total(samples, 'haft_connections_refused_total'),
      inFlight: total(samples, 'haft_connections_in_flight'),
      respawned: total(samples, 'haft_workers_respawned_total'),
    };
    const { accepted, delivered, refused, inFlight } = ledger;
    assert.equal(accepted, delivered + refused + inFlight, `accepted = delivered + refused + in flight: ${JSON.stringify(samples)}`);
    return ledger;
  }

  /** The ledger once it holds as many connections as `opened()` says and none of them is under way. */
  async settled(opened) {
    return until('all opened connections to be accepted and none in flight', async () => {
      const ledger = await this.ledger();
      if (ledger.accepted === opened() && ledger.inFlight === 0) return ledger;
      throw new Error(`${opened()} opened, ${JSON.stringify(ledger)}`);
    });
  }

  /** Stops it as an administrator would, and checks that it leaves nothing behind. */
  async stop() {
    await this.status();
    const how = await this.child.end('SIGTERM');
    assert.deepEqual(how, { code: 0, signal: null }, 'it ends by itself, with exit code 0');
    assert.ok(!existsSync(this.admin), 'no socket file is left');
    await until('the end of all workers', () => [...this.workers].every((pid) => !alive(pid)));
  }
}

/** haft without `-l`: it opens what a Node program asks for. */
export class OwnListeners extends Haft {
  constructor(place, flags) {
    super(place, flags, { listens: false });
  }

  /** Waits until all workers are ready, and gives what each server of the program has said of its address. */
  async ready(servers = 1) {
    await until('a 200 from /readyz', async () => (await this.get('/readyz')).status === 200);
    const { slots } = await this.status();
    const addresses = [];
    for (let index = 0; index < servers; index++) {
      const said = await this.child.heard(new RegExp(`server ${index} at (\\S+)$`), slots.length);
      const unique = [...new Set(said.map(([, address]) => address))];
      if (unique.length > 1) throw new Error(`server ${index} has one address in every worker, not ${unique}`);
      addresses.push(unique[0]);
    }
    return addresses;
  }
}

/** Whether a process of this id exists. */
export function alive(pid) {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    if (error.code === 'ESRCH') return false;
    throw error;
  }
}
