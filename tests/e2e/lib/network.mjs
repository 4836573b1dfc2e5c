// Several machines on one: network namespaces with an address each, joined by a bridge; where these are forbidden, loopback
// addresses. All of it is removed at the end of the test.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';

import { until } from './wait.mjs';

/** A part of a machine's name that no other run has at the moment. */
const MARK = process.pid.toString(36).slice(-5);
/** How many client addresses there are. */
export const CLIENT_ADDRESSES = 60;

let made = 0;

function ip(...args) {
  const { status, stderr, error } = spawnSync('ip', args, { encoding: 'utf8' });
  if (error || status !== 0) throw new Error(`ip ${args.join(' ')}: ${error?.message ?? stderr.trim()}`);
}

/** Machines with these names. */
export function network(place, names) {
  try {
    return new Bridged(place, names);
  } catch (error) {
    place.say(`no network namespaces here (${error.message}): the machines are loopback addresses, and none is cut off`);
    return new Loopback(place, names);
  }
}

class Bridged {
  constructor(place, names) {
    const number = made++;
    this.place = place;
    this.net = `10.${64 + (process.pid % 128)}.${((process.pid >> 7) * 16 + number) % 256}`;
    this.bridge = `hf${MARK}${number}`;
    this.machines = {};
    place.atEnd(() => this.#remove());
    // Also when this program is asked to stop in the middle.
    process.once('exit', () => this.#remove());
    ip('link', 'add', this.bridge, 'type', 'bridge');
    ip('addr', 'add', `${this.net}.1/24`, 'dev', this.bridge);
    for (let index = 0; index < CLIENT_ADDRESSES; index++) ip('addr', 'add', `${this.net}.${100 + index}/24`, 'dev', this.bridge);
    ip('link', 'set', this.bridge, 'up');
    names.forEach((name, index) => this.#add(name, number, index));
  }

  #add(name, number, index) {
    const namespace = `hf${MARK}${number}${name}`;
    const address = `${this.net}.${10 + index}`;
    const [ours, theirs] = [`h${MARK}${number}${index}a`, `h${MARK}${number}${index}b`];
    ip('netns', 'add', namespace);
    this.machines[name] = { namespace, address, ours, theirs };
    ip('link', 'add', ours, 'type', 'veth', 'peer', 'name', theirs);
    ip('link', 'set', theirs, 'netns', namespace);
    ip('link', 'set', ours, 'master', this.bridge, 'up');
    ip('-n', namespace, 'addr', 'add', `${address}/24`, 'dev', theirs);
    ip('-n', namespace, 'link', 'set', theirs, 'up');
    ip('-n', namespace, 'link', 'set', 'lo', 'up');
  }

  /** Whether a machine can be cut off. */
  get canCut() {
    return true;
  }

  clientAddresses() {
    return Array.from({ length: CLIENT_ADDRESSES }, (_, index) => `${this.net}.${100 + index}`);
  }

  address(name) {
    return this.machines[name].address;
  }

  /** A child process on this machine. */
  child(name, command, ...args) {
    return this.place.child('ip', 'netns', 'exec', this.machines[name].namespace, command, ...args);
  }

  /** Sets something of the machine's kernel, such as `net.ipv4.tcp_keepalive_time`, where this program may. */
  set(name, setting, value) {
    const path = `/proc/sys/${setting.replaceAll('.', '/')}`;
    try {
      ip('netns', 'exec', this.machines[name].namespace, 'sh', '-c', `echo ${value} > ${path}`);
    } catch (error) {
      this.place.say(`${setting} stays as it is: ${error.message}`);
    }
  }

  /** Ends all that runs on the machine. When this resolves, the kernel has closed all their connections. */
  async kill(name) {
    const pids = this.#kill(name);
    await until(`the end of all on ${name}`, () => this.#kill(name).length === 0 && !pids.some(hasSockets));
  }

  /** Yields the processes that it has found. */
  #kill(name) {
    const { stdout } = spawnSync('ip', ['netns', 'pids', this.machines[name].namespace], { encoding: 'utf8' });
    const pids = stdout.split('\n').filter(Boolean);
    for (const pid of pids) attempt(() => process.kill(Number(pid), 'SIGKILL'));
    return pids;
  }

  /** Takes the machine off the network. */
  cut(name) {
    ip('link', 'set', this.machines[name].ours, 'down');
  }

  /** Another machine has this one's address from now on, as when a virtual address moves. */
  takeOver(name, by) {
    const [from, to] = [this.machines[name], this.machines[by]];
    ip('link', 'set', from.ours, 'down');
    ip('-n', to.namespace, 'addr', 'add', `${from.address}/24`, 'dev', to.theirs);
    ip('neigh', 'flush', 'dev', this.bridge);
  }

  #remove() {
    if (this.removed) return;
    this.removed = true;
    for (const [name, { namespace, ours }] of Object.entries(this.machines)) {
      // What has not ended by itself would keep the namespace.
      attempt(() => this.#kill(name));
      attempt(() => ip('link', 'del', ours));
      attempt(() => ip('netns', 'del', namespace));
    }
    attempt(() => ip('link', 'del', this.bridge));
  }
}

class Loopback {
  constructor(place, names) {
    this.place = place;
    this.net = `127.${64 + (process.pid % 128)}.${made++}`;
    this.names = names;
  }

  get canCut() {
    return false;
  }

  clientAddresses() {
    return Array.from({ length: CLIENT_ADDRESSES }, (_, index) => `${this.net}.${100 + index}`);
  }

  address(name) {
    return `${this.net}.${10 + this.names.indexOf(name)}`;
  }

  child(name, command, ...args) {
    return this.place.child(command, ...args);
  }

  /** There is one kernel for all, and it is not this program's. */
  set() {}
}

/** A process leaves its namespaces before its files are closed, and is a zombie after that. */
function hasSockets(pid) {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

function attempt(work) {
  try {
    work();
  } catch {
    // It is gone already.
  }
}
