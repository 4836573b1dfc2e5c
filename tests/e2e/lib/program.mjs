// The frame around each test: a folder and children of its own, which are gone afterwards, whatever happened.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { Child } from './child.mjs';
import { Client } from './client.mjs';
import { Haft } from './haft.mjs';

/**
 * Runs `body(place)` as one test. The time limit is only there so that a hang ends; on failure the last lines of every
 * child are shown.
 */
export function program(name, body, { minutes = 4 } = {}) {
  test(name, { timeout: minutes * 60_000 }, async (t) => {
    const place = new Place(t);
    try {
      await body(place);
    } catch (error) {
      tails(place, t);
      throw error;
    } finally {
      await place.clear();
    }
  });
}

/**
 * As `program`, for what has to wait long and needs little: it begins with the first test of its file and goes on beside
 * the others, and only what is left of it is waited for in its turn.
 */
export function beside(name, body, { minutes = 4 } = {}) {
  const said = [];
  let place;
  let outcome;
  before(() => {
    place = new Place({ diagnostic: (text) => said.push(text) });
    outcome = body(place).then(() => undefined, (error) => error);
  });
  test(name, { timeout: minutes * 60_000 }, async (t) => {
    const error = await outcome;
    said.forEach((text) => t.diagnostic(text));
    if (!error) return;
    tails(place, t);
    throw error;
  });
  after(() => place.clear());
}

function tails(place, t) {
  for (const child of place.children) t.diagnostic(`last lines of ${child.name}:\n${child.tail()}`);
}

/** The folders that exist now. They go also when this program is told to stop in the middle. */
const folders = new Set();
process.once('exit', () => folders.forEach(remove));

function remove(folder) {
  rmSync(folder, { recursive: true, force: true });
  folders.delete(folder);
}

/** What a test may start, and the folder it may write to. */
class Place {
  constructor(t) {
    this.t = t;
    this.folder = mkdtempSync(join(tmpdir(), 'haft-e2e-'));
    folders.add(this.folder);
    this.children = [];
    this.clients = [];
    this.endings = [];
  }

  /** Tells something worth reading beside the result. */
  say(text) {
    this.t.diagnostic(text);
  }

  /** A child process. */
  child(command, ...args) {
    const child = new Child(command, args, { cwd: this.folder });
    this.children.push(child);
    return child;
  }

  /** A running and ready haft with these flags. */
  async haft(...flags) {
    const haft = new Haft(this, flags);
    await haft.ready();
    return haft;
  }

  /** A Socket.IO client; it is closed at the end of the test. */
  client(url, home, options) {
    const client = new Client(url, home, options);
    this.clients.push(client);
    return client;
  }

  /** What is to be done when the test has ended, well or not. */
  atEnd(ending) {
    this.endings.push(ending);
  }

  async clear() {
    for (const ending of this.endings) await ending();
    this.clients.forEach((client) => client.close());
    const alive = this.children.filter((child) => !child.how);
    await Promise.all(alive.map((child) => child.end('SIGTERM').catch(() => child.end('SIGKILL'))));
    remove(this.folder);
  }
}
