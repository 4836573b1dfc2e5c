// What is done to haft and its workers: a schedule that a seed decides, and the doing of it.

import { execFile } from 'node:child_process';
import { readFileSync, readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';

import { alive } from '../e2e/lib/haft.mjs';
import { random } from '../e2e/lib/node-ledger.mjs';
import { until } from '../e2e/lib/wait.mjs';

const run = promisify(execFile);

/**
 * The flags that the schedule is made for. What it does lasts longer than the first two on purpose; nobody whom a leaving
 * worker serves needs as long as the third.
 */
export const FLAGS = ['--hang-timeout', '1s', '--hold-timeout', '2s', '--drain-timeout', '12s'];
export const HOLD_MS = 2_000;
/** Numbers of slots. */
const SLOTS = { least: 2, most: 6 };

/** One round of misfortunes, to be shuffled. */
const ROUND = [
  'kill', 'kill', 'kill', 'stop', 'stop', 'stopAndKill', 'stopAndKill', 'reload', 'scale', 'scale', 'drain',
  'starveWorker', 'starveMaster', 'killMaster',
];

/**
 * What happens and when: `[{ after, kind, dice }]`. `after` is a number of connections, so the same seed means the same
 * however fast the machine is; `dice` are numbers in [0, 1) that decide about the rest. About one each `gap` connections.
 */
export function schedule(seed, total, gap) {
  const chance = random(seed ^ 0x5eed);
  const events = [];
  let round = [];
  for (let after = gap; after < total * 0.9; after += gap * (0.4 + 1.2 * chance())) {
    if (round.length === 0) round = [...ROUND];
    const [kind] = round.splice(Math.floor(chance() * round.length), 1);
    events.push({ after: Math.round(after), kind, dice: [chance(), chance(), chance()] });
  }
  return events;
}

export class Misfortunes {
  /** What goes on and will be put right: promises. */
  #pending = new Set();
  /** Processes that are stopped or starved, or will be killed. */
  #hurt = new Set();
  #masterIsStarved = false;
  counts = { kills: 0, stops: 0, reloads: 0, scales: 0, drains: 0, starvations: 0, masterDeaths: 0, passedOver: 0 };

  /** Passes `say` in words what is done and when. */
  constructor(haft, ledger, say) {
    Object.assign(this, { haft, ledger, say });
  }

  /** Lets it happen, as soon as it can, and gives it up if it cannot. */
  async happen({ kind, dice }) {
    if (!(await this[`_${kind}`](...dice))) this.counts.passedOver++;
  }

  /** Resolves when everything that goes on has been put right. Throws if something went wrong with it. */
  async over() {
    while (this.#pending.size > 0) await Promise.all(this.#pending);
  }

  async _kill(which) {
    const worker = await this.#victim(which);
    return worker && this.#kill(worker);
  }

  #kill(pid) {
    if (!alive(pid)) return false;
    this.counts.kills++;
    this.say(`kill ${pid}`);
    this.ledger.kill(pid);
    return true;
  }

  /** A worker hangs, for longer than --hang-timeout, and goes on unless haft kills it for that. */
  async _stop(which, long) {
    const pid = await this.#stop(which);
    if (pid) this.#later(1_200 + long * 2_000, () => this.#continue(pid));
    return pid;
  }

  /** A worker dies that has not taken what was sent to it. */
  async _stopAndKill(which, long) {
    const pid = await this.#stop(which);
    if (pid) this.#later(200 + long * 600, () => this.#continue(pid, this.#kill(pid)));
    return pid;
  }

  async #stop(which) {
    const pid = await this.#victim(which);
    if (!pid || !signalled(pid, 'SIGSTOP')) return undefined;
    this.#hurt.add(pid);
    await until(`${pid} to be stopped`, () => hasStopped(pid));
    this.counts.stops++;
    this.say(`stop ${pid}`);
    this.ledger.stop(pid);
    return pid;
  }

  #continue(pid) {
    this.#hurt.delete(pid);
    this.say(`continue ${pid}`);
    this.ledger.goOn(pid);
    // haft may have killed it meanwhile.
    signalled(pid, 'SIGCONT');
  }

  async _reload(how) {
    const { generation } = await this.haft.status();
    this.say('reload');
    if (how < 0.5) {
      this.haft.child.process.kill('SIGHUP');
      // It is refused while another one is under way.
      const begun = async () => (await this.haft.status()).generation > generation;
      const hasBegun = await until('a reload', begun, { within: 3_000 }).catch(() => false);
      this.counts.reloads += Number(hasBegun);
      return hasBegun;
    }
    const done = await this.#order('/reload');
    this.counts.reloads += Number(done);
    return done;
  }

  async _scale(to, how) {
    const { slots } = await this.haft.status();
    const others = [];
    for (let count = SLOTS.least; count <= SLOTS.most; count++) if (count !== slots.length) others.push(count);
    const wanted = others[Math.floor(to * others.length)];
    const bySignal = how < 0.4;
    const left = bySignal ? slots.length - 1 : wanted;
    if (!(await this.#well((all) => all.some(({ slot }) => slot < left)))) return false;
    this.counts.scales++;
    this.say(`scale from ${slots.length} ${bySignal ? 'towards' : 'to'} ${wanted}`);
    if (!bySignal) return this.#order(`/scale?workers=${wanted}`);
    const signal = wanted > slots.length ? 'SIGTTIN' : 'SIGTTOU';
    this.haft.child.process.kill(signal);
    return until(`an answer to ${signal}`, async () => (await this.haft.status()).slots.length !== slots.length);
  }

  async _drain(which, long) {
    const well = await this.#well((all) => all.length >= 2);
    if (!well) return false;
    const { slot } = well[Math.floor(which * well.length)];
    this.say(`drain slot ${slot}`);
    const done = await this.#order(`/drain?slot=${slot}`);
    this.counts.drains += Number(done);
    // The slot may be gone by then.
    if (done) this.#later(500 + long * 1_500, () => this.#order(`/undrain?slot=${slot}`));
    return done;
  }

  /** A worker has no descriptor left for a second. */
  async _starveWorker(which) {
    const pid = await this.#victim(which);
    if (!pid) return false;
    const limit = await softLimit(pid).catch(() => undefined);
    if (!limit || !(await limited(pid, 5))) return false;
    this.counts.starvations++;
    this.say(`starve ${pid}`);
    this.#hurt.add(pid);
    this.#later(1_000, () => this.#feed(pid, limit));
    return true;
  }

  /** The master has none for a second, or for longer than clients are held; and a worker may die meanwhile. */
  async _starveMaster(which, long, also) {
    const { pid } = this.haft.child;
    if (this.#masterIsStarved) return false;
    const victim = also < 0.5 && (await this.#victim(which));
    const limit = await softLimit(pid);
    const end = this.ledger.shortage();
    this.#masterIsStarved = true;
    if (!(await limited(pid, spare(pid) + 1))) throw new Error('the limit of the master cannot be set');
    this.counts.starvations++;
    this.say('starve the master');
    if (victim) this.#hurt.add(victim);
    if (victim) this.#later(300, () => this.#kill(victim));
    this.#later(long < 0.75 ? 1_000 : HOLD_MS + 1_000, async () => {
      await this.#feed(pid, limit);
      this.#masterIsStarved = false;
      end();
    });
    return true;
  }

  /** The master dies, and the next one takes its place. */
  async _killMaster() {
    await this.haft.kill(() => {
      this.counts.masterDeaths++;
      this.say(`kill the master, ${this.haft.child.pid}`);
      this.ledger.masterKilled();
    });
    return true;
  }

  #feed(pid, limit) {
    this.say(`feed ${pid}`);
    this.#hurt.delete(pid);
    return limited(pid, limit);
  }

  /** A worker to whom nothing was done, if it is not the last; waits a moment for one. */
  async #victim(which) {
    const well = await this.#well((all) => all.length >= 2);
    return well?.[Math.floor(which * well.length)].pid;
  }

  /**
   * The slots that serve and to whose workers nothing was done, once they are `enough`; waits a moment for that. One is
   * always left: without any haft could only refuse, and rightly.
   */
  async #well(enough) {
    const look = async () => {
      const { slots } = await this.haft.status();
      const serving = slots.filter(({ pid, state, hung, drained }) => pid && state === 'ready' && !hung && !drained);
      const well = serving.filter(({ pid }) => !this.#hurt.has(pid) && !this.ledger.wasKilled(pid));
      return enough(well) && well;
    };
    return until('enough workers that are well', look, { within: 5_000 }).catch(() => undefined);
  }

  /** Whether haft did what it was asked to. It may have a reason not to, which it gives. */
  async #order(path) {
    const { status, body } = await this.haft.post(path);
    if (![200, 202, 400, 409].includes(status)) throw new Error(`${path}: ${status} ${body}`);
    return status < 300;
  }

  #later(ms, what) {
    const promise = pause(ms).then(what).finally(() => this.#pending.delete(promise));
    this.#pending.add(promise);
    // `over` reports its failure.
    promise.catch((error) => this.#pending.add(Promise.reject(error)));
  }
}

/** Sends a signal, unless there is no such process any more. */
function signalled(pid, signal) {
  try {
    return process.kill(pid, signal);
  } catch (error) {
    if (error.code === 'ESRCH') return false;
    throw error;
  }
}

/** Whether a process is stopped, or gone (proc_pid_stat(5), the third field). */
function hasStopped(pid) {
  try {
    return / \(.*\) [TZX] /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch (error) {
    if (error.code === 'ENOENT' || error.code === 'ESRCH') return true;
    throw error;
  }
}

async function softLimit(pid) {
  const { stdout } = await run('prlimit', ['--pid', pid, '--nofile', '--raw', '--noheadings', '--output', 'SOFT']);
  return stdout.trim();
}

/** Sets how many descriptors a process may have (the soft RLIMIT_NOFILE). `false`: the process is gone. */
async function limited(pid, limit) {
  try {
    await run('prlimit', ['--pid', pid, `--nofile=${limit}:`]);
    return true;
  } catch (error) {
    if (!alive(pid)) return false;
    throw error;
  }
}

/** The master's spare descriptor, its only datagram socket: all below it are in use for good, those above come and go. */
function spare(pid) {
  const sockets = readFileSync(`/proc/${pid}/net/unix`, 'utf8').split('\n').map((line) => line.trim().split(/\s+/));
  const datagram = new Set(sockets.filter(([, , , , type]) => type === '0002').map((fields) => `socket:[${fields[6]}]`));
  const found = readdirSync(`/proc/${pid}/fd`).map(Number).find((number) => number > 2 && datagram.has(target(pid, number)));
  if (found === undefined) throw new Error('the master has no spare descriptor');
  return found;
}

function target(pid, number) {
  try {
    return readlinkSync(`/proc/${pid}/fd/${number}`);
  } catch {
    // It was closed meanwhile.
    return undefined;
  }
}
