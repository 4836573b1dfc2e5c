// The frame around each test: a folder and children of its own, which are gone afterwards, whatever happened.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { before, test } from 'node:test';

import { Child } from './child.mjs';
import { Client } from './client.mjs';
import { Haft } from './haft.mjs';

/** How many of those that mostly wait are under way at a time. */
const AT_ONCE = 3;

/**
 * Runs `body(place)` as one test. The time limit is only there so that a hang ends; on failure the last lines of every
 * child are shown.
 */
export function program(name, body, { minutes = 4 } = {}) {
  test(name, { timeout: minutes * 60_000 }, async (t) => {
    const { error } = await run(body, new Place(t));
    if (error) throw error;
  });
}

/**
 * As `program`, for what mostly waits and needs little: a few of them are under way beside whatever else the file does,
 * and each is reported in its turn.
 */
export function beside(name, body, options) {
  // Those that are not asked for should not run either.
  if (process.execArgv.some((flag) => flag.startsWith('--test-name-pattern'))) return program(name, body, options);
  const said = [];
  let outcome;
  before(() => {
    const place = new Place({ diagnostic: (text) => said.push(text) });
    outcome = inLane(() => run(body, place)).catch((error) => ({ error }));
  });
  test(name, { timeout: 9 * 60_000 }, async (t) => {
    const { error } = await outcome;
    said.forEach((text) => t.diagnostic(text));
    if (error) throw error;
  });
}

/** Runs it, and ends and removes whatever it has made. Yields `{ error }` if it has failed. */
async function run(body, place) {
  try {
    await body(place);
    return {};
  } catch (error) {
    tails(place, place.t);
    return { error };
  } finally {
    await place.clear();
  }
}

const lanes = { free: AT_ONCE, queue: [] };

async function inLane(work) {
  // The hook runs while the program's file is still read: what stands below may not be there yet.
  await new Promise((resolve) => setImmediate(resolve));
  if (lanes.free === 0) await new Promise((resolve) => lanes.queue.push(resolve));
  else lanes.free--;
  try {
    return await work();
  } finally {
    const next = lanes.queue.shift();
    if (next) next();
    else lanes.free++;
  }
}

function tails(place, t) {
  for (const child of place.children) t.diagnostic(`last lines of ${child.name}:\n${child.tail()}`);
}

/** The folders that exist now. They go also when this program is asked to stop in the middle. */
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

  /** Prints something worth reading beside the result. */
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
