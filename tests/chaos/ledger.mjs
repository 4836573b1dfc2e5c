// Two books about the same connections, held against each other: what each client says became of it, and what haft's
// log says it did with it. A client may have failed only if haft says that a worker had taken it, and that worker was
// killed before the client failed; or that it was refused for want of descriptors while the master was kept from them,
// or after --hold-timeout since no worker had room (on a machine that is too busy for the load). A worker that was
// asked to leave may ask late clients to reconnect, as HTTP and WebSocket have it. A master that is killed takes with
// it what it had accepted and not yet passed on, and the last lines of its log.

import { HOLD_MS } from './misfortunes.mjs';

/** What haft says of single connections and of workers, at `--log-level info,haft::ledger=trace`. */
const LINES = [
  ['delivered', /^(\S+) +TRACE delivered a connection client=(\S+) slot=\d+ worker=(\d+)/],
  ['refused', /^(\S+) +DEBUG refused a connection client=(\S+) reason="(\w+)"/],
  ['ready', /^(\S+) .*\bworker is ready slot=\d+ worker=(\d+) pid=(\d+)/],
  ['hung', /^(\S+) .*\bit hangs; it is killed and replaced slot=\d+ worker=(\d+)/],
  ['left', /^(\S+) .*\bworker has left: (.+) slot=\d+ worker=(\d+)/],
  ['died', /^(\S+) .*\bworker (?:died|exited before it was ready): (.+?)(?:; replacing it)? slot=\d+ worker=(\d+)/],
  ['broken', /^(\S+) .*(this is a bug in haft|panicked at|broke the hand-over protocol|broke Node's cluster protocol)/],
];

/** For how long after a shortage of descriptors clients that met it may still be refused, in ms. */
const AFTERMATH = 5_000;
/** For how long after a master's death clients may notice that their connection ended with it, in ms. */
const NOTICED = 5_000;
/** The last lines of a killed master's log are not written: so much before its death, in ms. */
const UNWRITTEN = 1_000;

export class Ledger {
  /** By the client's address and port: `{ outcome, delivered, refused }`. What is in order is struck out. */
  #open = new Map();
  /** By worker: its number, and which master has started it. */
  #pids = new Map();
  /** By process id: when it was killed, and since when it had been stopped then. */
  #killed = new Map();
  #stopped = new Map();
  #shortages = [];
  #violations = [];
  /** How each worker ended: judged when all is known. */
  #gone = [];
  /** When each master was killed. */
  #deaths = [];
  counts = {
    connections: 0, websockets: 0, roomMessages: 0, fromOtherWorkers: 0, served: 0, failed: 0, sentAway: 0, hangKills: 0,
    delivered: 0, refused: 0,
  };
  /** Of the master that serves now: what its log says. */
  now = { delivered: 0, refused: 0, hangKills: 0 };

  /** `exitsWithMaster`: whether workers end as soon as their master has died, as those of Node's own cluster do. */
  constructor({ exitsWithMaster = false } = {}) {
    this.exitsWithMaster = exitsWithMaster;
  }

  /** A client has ended, or never got through. */
  client(outcome) {
    if (outcome.connected) this.counts.connections++;
    if (outcome.kind === 'websocket') this.counts.websockets++;
    this.counts.roomMessages += outcome.heard ?? 0;
    this.counts.fromOtherWorkers += outcome.fromOthers ?? 0;
    const became = outcome.sentAway ? 'sentAway' : outcome.failure ? 'failed' : 'served';
    this.counts[became]++;
    this.#entry(outcome.from).outcome = outcome;
    this.#strike(outcome.from);
  }

  /** A process is killed now. */
  kill(pid) {
    if (!this.#killed.has(pid)) this.#killed.set(pid, Date.now());
    process.kill(pid, 'SIGKILL');
  }

  /** The process does nothing from now on, not even acknowledge, until it goes on or is killed. */
  stop(pid) {
    this.#stopped.set(pid, Date.now());
  }

  /** The process goes on, unless it was killed. */
  goOn(pid) {
    if (!this.#killed.has(pid)) this.#stopped.delete(pid);
  }

  /** Whether the process was killed. */
  wasKilled(pid) {
    return this.#killed.has(pid);
  }

  /** From now on, until the function that this gives is called, the master has too few descriptors. */
  shortage() {
    const shortage = { from: Date.now(), to: Infinity };
    this.#shortages.push(shortage);
    return () => (shortage.to = Date.now() + AFTERMATH);
  }

  /** The master is killed now. */
  masterKilled() {
    this.#deaths.push(Date.now());
    this.now = { delivered: 0, refused: 0, hangKills: 0 };
  }

  /** A line of the log of a master: the first one is 0. */
  read(line, master = 0) {
    for (const [kind, pattern] of LINES) {
      const found = line.match(pattern);
      if (found) return this.#heard(kind, Date.parse(found[1]), found[2], found[3], { line, master });
    }
  }

  #heard(kind, at, what, which, { line, master }) {
    const of = (number) => `${master}.${number}`;
    if (kind in this.now) this.#count(kind, master);
    if (kind === 'delivered' || kind === 'refused') {
      const entry = this.#entry(what);
      if (entry.delivered || entry.refused) this.#violations.push(`${what}: settled twice: ${line}`);
      entry[kind] = kind === 'delivered' ? of(which) : { at, reason: which };
      this.#strike(what);
    } else if (kind === 'ready') {
      this.#pids.set(of(what), Number(which));
    } else if (kind === 'hung') {
      this.#count('hangKills', master);
      const pid = this.#pids.get(of(what));
      if (!this.#killed.has(pid)) this.#killed.set(pid, at);
    } else if (kind === 'left' || kind === 'died') {
      this.#gone.push({ worker: of(which), how: what, kind });
    } else {
      this.#violations.push(line);
    }
  }

  #count(what, master) {
    this.counts[what]++;
    if (master === this.#deaths.length) this.now[what]++;
  }

  #entry(from) {
    if (!this.#open.has(from)) this.#open.set(from, {});
    return this.#open.get(from);
  }

  /** Strikes out a client that was served by the same process by both books. */
  #strike(from) {
    const { outcome, delivered } = this.#open.get(from);
    const pid = this.#pids.get(delivered);
    const agrees = pid && outcome && !outcome.failure && (outcome.pid ?? pid) === pid;
    if (agrees) this.#open.delete(from);
  }

  /**
   * `{ wrong, fates }`: everything that should not be, in words; and how many clients of those that are in order met each
   * fate other than to be served and noted down.
   */
  verdict() {
    const wrong = [...this.#violations];
    const fates = { refused: 0, refusedBusy: 0, lostWithWorker: 0, lostWithMaster: 0, endedWithMaster: 0, sentAway: 0, unwritten: 0 };
    for (const [from, entry] of this.#open) {
      const { is, because } = this.#judge(entry);
      if (is) fates[is]++;
      else wrong.push(`${from} (${entry.outcome?.kind}): ${because}`);
    }
    wrong.push(...this.#gone.map((end) => this.#wrongEnd(end)).filter(Boolean));
    return { wrong, fates };
  }

  /**
   * A worker ends by being killed, or as it is asked to: with 0, or by SIGTERM at the end of its drain time (a process of
   * socket.io lives for 30 s after a polling client stayed away: `closeTimeout`). That excuses no client's failure. One
   * that has never been ready had none.
   */
  #wrongEnd({ worker, how, kind }) {
    const pid = this.#pids.get(worker);
    if (this.#killed.has(pid) || (kind === 'left' && (!pid || how.startsWith('ended as asked (')))) return undefined;
    return `worker ${worker} (${pid}) was not killed and yet ${kind}: ${how}`;
  }

  /** Whether the worker was asked to leave and did, or its master died. */
  #hasLeft(key) {
    return this.#masterDied(key) || this.#gone.some(({ worker, kind }) => worker === key && kind === 'left');
  }

  /** When the worker's master was killed, if it was. */
  #masterDied(key) {
    return this.#deaths[Number(key.split('.')[0])];
  }

  /** Whether a master was killed while this client's connection was open, and ended or was noticed to end soon after. */
  #metDeath({ begun, at }, noticed) {
    return this.#deaths.some((death) => begun <= death && death - UNWRITTEN <= at && at <= death + noticed);
  }

  /** `{ is }`: the fate of a client that was not struck out. `{ because }`: why it is wrong. */
  #judge({ outcome, delivered, refused }) {
    const because = (text) => ({ because: text });
    const pid = this.#pids.get(delivered);
    if (!outcome) return because('haft speaks of it a second time, or there is no such client');
    if (!outcome.failure) {
      if (refused) return because(`was refused (${refused.reason}) and yet served`);
      if (delivered) return because(`was delivered to ${pid} and served by ${outcome.pid}`);
      if (this.#metDeath(outcome, Infinity)) return { is: 'unwritten' };
      return because('was served and yet never delivered');
    }
    const failure = `failed (${outcome.failure}, at ${new Date(outcome.at).toISOString()})`;
    if (refused) {
      const is = this.#refusedRightly(refused, outcome);
      return is ? { is } : because(`${failure}, refused for ${refused.reason}`);
    }
    if (!delivered) {
      if (outcome.cut && this.#metDeath(outcome, NOTICED)) return { is: 'lostWithMaster' };
      if (outcome.sentAway && this.#metDeath(outcome, Infinity)) return { is: 'sentAway' };
      return because(`${failure}, though no worker had acknowledged it`);
    }
    const wrong = this.#wronglyEnded(outcome, delivered, pid);
    if (wrong) return because(`${failure}, ${wrong}`);
    if (outcome.sentAway) return { is: 'sentAway' };
    return { is: this.#killed.has(pid) ? 'lostWithWorker' : 'endedWithMaster' };
  }

  /** The fate of a client that was refused as it may be. */
  #refusedRightly({ at, reason }, outcome) {
    const starved = this.#shortages.some(({ from, to }) => from <= at && at <= to);
    if (reason === 'no_descriptor' && starved && outcome.cut) return 'refused';
    const waited = at - outcome.begun >= HOLD_MS;
    return reason === 'no_worker' && waited && outcome.cut ? 'refusedBusy' : undefined;
  }

  /** Why a client should not have failed that a worker had acknowledged. */
  #wronglyEnded(outcome, delivered, pid) {
    if (outcome.sentAway) return this.#hasLeft(delivered) ? undefined : `by ${pid}, which was not to leave`;
    if (this.exitsWithMaster && outcome.cut && this.#masterDied(delivered) <= outcome.at) return undefined;
    const killed = this.#killed.get(pid);
    if (killed === undefined) return `acknowledged by ${pid}, which was not killed`;
    if (killed > outcome.at) return `before ${pid} was killed`;
    if (this.#stopped.get(pid) < outcome.begun) return `acknowledged by ${pid}, which had been stopped before it came`;
    return outcome.cut ? undefined : `which the death of ${pid} does not explain`;
  }
}
