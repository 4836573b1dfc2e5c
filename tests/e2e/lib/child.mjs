// A child process whose lines are kept, and which never outlives this program.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

import { until, within } from './wait.mjs';

const running = new Set();

/** How many of its last lines a failure shows. */
const SHOWN = 60;

// Also when this program is told to stop, or stops by an error, nothing that it started stays.
process.on('exit', () => running.forEach((child) => child.process.kill('SIGKILL')));
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.once(signal, () => process.exit(1));

export class Child {
  constructor(command, args, options = {}) {
    this.name = [command, ...args].join(' ');
    /** Everything it wrote, stdout and stderr, line by line. */
    this.lines = [];
    this.process = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options });
    running.add(this);
    for (const stream of [this.process.stdout, this.process.stderr]) {
      createInterface({ input: stream }).on('line', (line) => this.lines.push(line));
    }
    this.exited = new Promise((resolve) => {
      this.process.once('error', (error) => resolve({ error }));
      this.process.once('exit', (code, signal) => resolve({ code, signal }));
    }).then((how) => {
      this.how = how;
      running.delete(this);
      return how;
    });
  }

  get pid() {
    return this.process.pid;
  }

  /** The matches of the first `count` lines that match. Fails at once when the process has ended without them. */
  async heard(pattern, count = 1) {
    const found = () => this.lines.map((line) => line.match(pattern)).filter(Boolean);
    await until(`${count} lines like ${pattern} from ${this.name}`, () => found().length >= count || this.how);
    if (found().length < count) throw new Error(`${this.name} ended (${JSON.stringify(this.how)})\n${this.tail()}`);
    return found().slice(0, count);
  }

  /** Sends the signal and gives `{ code, signal }` of its end. */
  async end(signal = 'SIGTERM', ms = 30_000) {
    this.process.kill(signal);
    return within(ms, `the end of ${this.name} after ${signal}`, this.exited);
  }

  /** Its last lines. */
  tail() {
    return this.lines.slice(-SHOWN).join('\n');
  }
}
