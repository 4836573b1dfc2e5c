// A child process whose lines are kept, and which never outlives this program.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

import { Final, until, within } from './wait.mjs';

const running = new Set();

/** How many of its last lines a failure shows. */
const SHOWN = 60;

// Also when this program is asked to stop, or stops by an error, nothing that it started stays.
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

  /** The matches of the first `count` lines that match. */
  heard(pattern, count = 1) {
    return until(`${count} lines like ${pattern} from ${this.name}`, () => {
      const found = this.lines.map((line) => line.match(pattern)).filter(Boolean);
      if (found.length < count) this.mustRun();
      return found.length >= count && found.slice(0, count);
    });
  }

  /** Throws if it has ended. */
  mustRun() {
    if (this.how) throw new Final(`${this.name} has ended: ${JSON.stringify(this.how)}`);
  }

  /** Sends the signal and gives `{ code, signal }` of its end. */
  async end(signal = 'SIGTERM', ms = 60_000) {
    this.process.kill(signal);
    return within(ms, `the end of ${this.name} after ${signal}`, this.exited);
  }

  /** Its last lines. */
  tail() {
    return this.lines.slice(-SHOWN).join('\n');
  }
}
