// Two books about the same connections, held against each other: what each client says became of it, and what haft's log
// says it did with it. A client may have failed only if haft says that a worker had taken it, and that worker was killed
// before the client failed; or that it was refused for want of descriptors while the master was kept from them. A worker
// that was told to leave may ask those who come last to come again, as HTTP and WebSocket have it.

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

/** For how long after a shortage of descriptors clients may still be refused who met it, in ms. */
const AFTERMATH = 5_000;

export class Ledger {
  /** By the client's address and port: `{ outcome, delivered, refused }`. What is in order is struck out. */
  #open = new Map();
  /** By worker's number. */
  #pids = new Map();
  /** By process id: when it was killed, and since when it had been stopped then. */
  #killed = new Map();
  #stopped = new Map();
  #shortages = [];
  #violations = [];
  /** How each worker ended: judged when all is known. */
  #gone = [];
  counts = { connections: 0, served: 0, failed: 0, sentAway: 0, websockets: 0, delivered: 0, refused: 0, hangKills: 0 };

  /** A client has ended, or never got through. */
  client(outcome) {
    if (outcome.connected) this.counts.connections++;
    if (outcome.kind === 'websocket') this.counts.websockets++;
    const became = outcome.sentAway ? 'sentAway' : outcome.failure ? 'failed' : 'served';
    this.counts[became]++;
    this.#entry(outcome.from).outcome = outcome;
    this.#strike(outcome.from);
  }

  /** A process is killed now. */
  kill(pid) {
    this.#killed.set(pid, Date.now());
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

  /** A line of haft's log. */
  read(line) {
    for (const [kind, pattern] of LINES) {
      const found = line.match(pattern);
      if (found) return this.#heard(kind, Date.parse(found[1]), found[2], found[3], line);
    }
  }

  #heard(kind, at, what, which, line) {
    if (kind === 'delivered' || kind === 'refused') {
      this.counts[kind]++;
      const entry = this.#entry(what);
      if (entry.delivered || entry.refused) this.#violations.push(`${what}: settled twice: ${line}`);
      entry[kind] = kind === 'delivered' ? Number(which) : { at, reason: which };
      this.#strike(what);
    } else if (kind === 'ready') {
      this.#pids.set(Number(what), Number(which));
    } else if (kind === 'hung') {
      this.counts.hangKills++;
      const pid = this.#pids.get(Number(what));
      if (!this.#killed.has(pid)) this.#killed.set(pid, at);
    } else if (kind === 'left' || kind === 'died') {
      this.#gone.push({ worker: Number(which), how: what, kind });
    } else {
      this.#violations.push(line);
    }
  }

  #entry(from) {
    if (!this.#open.has(from)) this.#open.set(from, {});
    return this.#open.get(from);
  }

  /** Strikes a client out whom both books say was served by the same process. */
  #strike(from) {
    const { outcome, delivered } = this.#open.get(from);
    const pid = this.#pids.get(delivered);
    const agrees = pid && outcome && !outcome.failure && (outcome.pid ?? pid) === pid;
    if (agrees) this.#open.delete(from);
  }

  /** Everything that should not be, in words; of each client that failed rightly nothing. */
  violations() {
    const clients = [...this.#open].map(([from, entry]) => {
      const wrong = this.#wrong(entry);
      return wrong && `${from} (${entry.outcome?.kind}): ${wrong}`;
    });
    return [...this.#violations, ...clients.filter(Boolean), ...this.#gone.map((end) => this.#wrongEnd(end)).filter(Boolean)];
  }

  /**
   * A worker ends by being killed, or as it is told to: with 0, or by SIGTERM at the end of its drain time (a process of
   * socket.io lives for 30 s after a polling client stayed away: `closeTimeout`). That excuses no client's failure. One
   * that has never been ready had none.
   */
  #wrongEnd({ worker, how, kind }) {
    const pid = this.#pids.get(worker);
    if (this.#killed.has(pid) || (kind === 'left' && (!pid || how.startsWith('ended as asked (')))) return undefined;
    return `worker ${worker} (${pid}) was not killed and yet ${kind}: ${how}`;
  }

  /** Whether the worker was told to leave and did. */
  #hasLeft(number) {
    return this.#gone.some(({ worker, kind }) => worker === number && kind === 'left');
  }

  /** What is wrong with a client that was not struck out. */
  #wrong({ outcome, delivered, refused }) {
    const pid = this.#pids.get(delivered);
    if (!outcome) return 'haft speaks of it a second time, or there is no such client';
    if (!outcome.failure) {
      if (refused) return `was refused (${refused.reason}) and yet served`;
      return delivered ? `was delivered to ${pid} and served by ${outcome.pid}` : 'was served and yet never delivered';
    }
    const failure = `failed (${outcome.failure}, at ${new Date(outcome.at).toISOString()})`;
    if (refused) {
      const starved = this.#shortages.some(({ from, to }) => from <= refused.at && refused.at <= to);
      const rightly = refused.reason === 'no_descriptor' && starved && outcome.cut;
      return rightly ? undefined : `${failure}, refused for ${refused.reason}`;
    }
    if (!delivered) return `${failure}, though nobody had acknowledged it`;
    if (outcome.sentAway) return this.#hasLeft(delivered) ? undefined : `${failure}, by ${pid}, who was not to leave`;
    const killed = this.#killed.get(pid);
    if (killed === undefined) return `${failure}, acknowledged by ${pid}, who was not killed`;
    if (killed > outcome.at) return `${failure}, before ${pid} was killed`;
    if (this.#stopped.get(pid) < outcome.begun) return `${failure}, acknowledged by ${pid}, who had been stopped before it came`;
    return outcome.cut ? undefined : `${failure}, which the death of ${pid} does not explain`;
  }
}
