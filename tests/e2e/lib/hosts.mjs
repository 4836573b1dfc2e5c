// Three or four hosts with a haft each behind two proxies, as `haft front` says that they are to be, a Redis between them, and
// a crowd of clients with a ledger of what each lost and why.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { redisCommand } from './databases.mjs';
import { BINARY } from './haft.mjs';
import { fetchText } from './fetch.mjs';
import { Home } from './home.mjs';
import { network } from './network.mjs';
import { REASONS, Talk } from './talk.mjs';
import { inTurns, until } from './wait.mjs';

const HOSTS = ['A', 'B', 'C', 'D'];
const FRONTS = ['f1', 'f2'];
const REDIS = 'redis';
const [HAFT_PORT, ADMIN_PORT, FRONT_PORT, REDIS_PORT] = [3000, 9090, 8080, 6379];
const AT_ONCE = 30;
/** After how long a client without a session is worth a line. */
const LATE = 8_000;
/** How many of its last errors that line has. */
const LAST_ERRORS = 4;

/** What `haft front` writes. */
export function front(...args) {
  const { status, stdout, stderr } = spawnSync(BINARY, ['front', ...args], { encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout;
}

/** On the PATH, or where Debian puts what is for administrators. */
export const executable = (name) => [`/usr/sbin/${name}`, `/usr/local/sbin/${name}`].find(existsSync) ?? name;

/** Hosts and proxies. `kind`: haproxy or nginx. `command`: what haft runs, nothing for the built-in worker. */
export class Site {
  constructor(place, kind, command) {
    Object.assign(this, { place, kind, command });
    this.net = network(place, [...HOSTS, ...FRONTS, REDIS]);
    // What connects to a machine that is gone would keep this program from its end.
    place.atEnd(() => place.clients.forEach(({ home }) => home.end()));
    this.hafts = {};
    this.fronts = {};
    this.key = join(place.folder, 'tag-key');
    writeFileSync(this.key, 'a-secret-that-all-hosts-have\n');
    chmodSync(this.key, 0o600);
  }

  /** Starts Redis, a haft on each of these hosts, and the proxies before them. */
  async start(hosts) {
    this.names = hosts;
    this.living = new Set(hosts);
    await this.startRedis();
    await Promise.all(hosts.map((host) => this.#startHost(host)));
    await this.linked();
    for (const name of FRONTS) await this.startFront(name);
  }

  async startRedis() {
    this.redis = this.net.child(REDIS, ...redisCommand(this.net.address(REDIS), REDIS_PORT));
    await this.redis.heard(/Ready to accept connections/);
  }

  /** All living hosts know each other, over links that have broken so often at least. */
  linked(breaks = 0) {
    return until('the hosts to know each other', async () => {
      const rooms = await Promise.all([...this.living].map(async (host) => (await this.status(host)).rooms));
      const isLinked = (each) => each.is_linked && each.hosts === this.living.size - 1 && each.link_breaks >= breaks;
      return rooms.every(isLinked) || Promise.reject(new Error(JSON.stringify(rooms)));
    });
  }

  /** Messages that the living hosts count as lost, by reason. */
  async dropped() {
    const sums = {};
    for (const host of this.living) {
      const { dropped } = (await this.status(host)).rooms;
      for (const [why, count] of Object.entries(dropped)) sums[why] = (sums[why] ?? 0) + count;
    }
    return sums;
  }

  /** A host's end, of one kind or another. */
  lose(host) {
    this.living.delete(host);
  }

  /** A new version of haft on a host, as a package's upgrade has it: the old one ends, and the new one begins. */
  async replace(host) {
    const { code } = await this.hafts[host].end('SIGTERM');
    assert.equal(code, 0, 'it ends by itself');
    await this.#startHost(host);
    await this.linked();
  }

  /** A new version of the program on a host. */
  async reload(host) {
    const generation = (status) => Math.min(...status.slots.map((slot) => (slot.state === 'ready' ? slot.generation : -1)));
    const before = generation(await this.status(host));
    this.hafts[host].process.kill('SIGHUP');
    await until(`the old workers of host ${host} to have ended`, async () => {
      const status = await this.status(host);
      return generation(status) > before && status.draining.length === 0;
    });
  }

  /** The proxy's configuration for the hosts that there are. */
  configuration(name) {
    const hosts = this.names.flatMap((host) => ['--host', `${host}=${this.net.address(host)}:${HAFT_PORT}`]);
    const from = FRONTS.flatMap((front) => ['--from', this.net.address(front)]);
    // A proxy that may take another's address over listens at all of its own.
    const listen = this.net.canCut ? `0.0.0.0:${FRONT_PORT}` : `${this.net.address(name)}:${FRONT_PORT}`;
    return front(this.kind, '--listen', listen, '--admin-port', `${ADMIN_PORT}`, ...hosts, ...from);
  }

  /** The haft of a host, with the flags that the proxy's configuration says. */
  async #startHost(host) {
    const line = this.configuration('f1').match(new RegExp(`^# 0${host}: haft (.*) -- node server.js$`, 'm'));
    assert.ok(line, `flags for host ${host}`);
    const flags = line[1].replace('/etc/haft/tag-key', this.key).split(' ');
    const program = this.command.length > 0 ? ['--', ...this.command] : [];
    const redis = ['--redis', `redis://${this.net.address(REDIS)}:${REDIS_PORT}`];
    this.hafts[host] = this.net.child(host, BINARY, '-w', '2', ...flags, ...redis, '--drain-timeout', '3s', ...program);
    await until(`host ${host} to be ready`, async () => {
      this.hafts[host].mustRun();
      return (await this.status(host)).slots.every(({ state }) => state === 'ready');
    });
  }

  async status(host) {
    return JSON.parse(await fetchText(new URL(`http://${this.net.address(host)}:${ADMIN_PORT}/status`), new Home(undefined)));
  }

  async startFront(name) {
    const file = this.#write(name);
    const { folder } = this.place;
    const args = {
      haproxy: ['-W', '-db', '-f', file],
      nginx: ['-e', 'stderr', '-p', folder, '-c', file, '-g', `daemon off; user root; pid ${folder}/${name}.pid;`],
    };
    this.#tune(name);
    const child = this.net.child(name, executable(this.kind), ...args[this.kind]);
    this.fronts[name] = child;
    const home = new Home(undefined);
    await until(`${name} to reach a host`, async () => {
      child.mustRun();
      await fetchText(new URL('/haft/page.json', this.url(name)), home);
      return true;
    });
  }

  /** Sets what the configuration asks of the proxy's machine. */
  #tune(name) {
    const settings = this.configuration(name).match(/^#.*\bsysctl -w (.*)$/m)?.[1].split(' ') ?? [];
    for (const setting of settings) this.net.set(name, ...setting.split('='));
  }

  #write(name) {
    const file = join(this.place.folder, `${name}.conf`);
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((each) => `${each}_temp_path ${this.place.folder}/${name}-${each};`);
    const text = this.configuration(name);
    writeFileSync(file, this.kind === 'nginx' ? text.replace('http {', `http {\naccess_log off;\n${temporary.join('\n')}`) : text);
    return file;
  }

  url(name) {
    return `http://${this.net.address(name)}:${FRONT_PORT}`;
  }

  /** A proxy takes its configuration anew, without a connection being cut. */
  async reloadFront(name) {
    this.#write(name);
    const [signal, started] = this.kind === 'haproxy' ? ['SIGUSR2', /Loading success/] : ['SIGHUP', /./];
    const before = this.fronts[name].lines.filter((line) => started.test(line)).length;
    this.fronts[name].process.kill(signal);
    if (this.kind === 'haproxy') await this.fronts[name].heard(started, before + 1);
  }

  async addHost(host) {
    this.names = [...this.names, host];
    await this.#startHost(host);
    this.living.add(host);
    await this.linked();
    for (const name of FRONTS) await this.reloadFront(name);
  }
}

/** The host that a session's id names. */
export const hostOf = (sid) => sid.slice(-18, -16).replace(/^0/, '');

/** Clients, half of which poll and half of which upgrade, from many addresses, half through each proxy. */
export class Crowd {
  constructor(place, site, count) {
    Object.assign(this, { place, site });
    const homes = site.net.clientAddresses().map((address) => new Home(address));
    this.members = Array.from({ length: count }, (_, index) => ({
      home: homes[Math.floor(index / 2) % homes.length],
      front: FRONTS[index % 2],
      upgrades: Math.floor(index / 2) % 2 === 0,
      losses: [],
    }));
    this.rows = [];
    this.counted = {};
  }

  async arrive() {
    await inTurns(this.members, AT_ONCE, async (member) => {
      const transports = member.upgrades ? ['polling', 'websocket'] : ['polling'];
      member.client = this.place.client(this.site.url(member.front), member.home, { transports, query: {} });
      await member.client.connected();
      if (member.upgrades) await member.client.upgraded();
    });
  }

  /** All join one room, in which there is always one that speaks while something happens. */
  async gather() {
    this.talk = new Talk(this.members.map(({ client }) => client), (client) => hostOf(client.socket.io.engine.id));
    await this.talk.gather();
    // Before the hosts knew each other something may have been lost.
    this.counted = await this.site.dropped();
  }

  /** Each says something to all. */
  async converse() {
    this.talk.burst(this.members.length);
    await this.echo();
  }

  /** Each client is with a host, and is answered there. */
  async echo() {
    await inTurns(this.members, AT_ONCE, ({ client }) => client.ask('echo', client.socket.id));
  }

  /** How many are with no host, or are not answered there. That a session ends meanwhile is no error. */
  async unanswered() {
    const outcomes = await inTurns(this.members, AT_ONCE, async ({ client }) => {
      if (!client.socket.connected) return false;
      return client.ask('echo', client.socket.id).then(() => true, () => false);
    });
    return outcomes.filter((isAnswered) => !isAnswered).length;
  }

  hosts() {
    const counts = {};
    for (const { client } of this.members) {
      const host = hostOf(client.socket.io.engine.id);
      counts[host] = (counts[host] ?? 0) + 1;
    }
    return counts;
  }

  /**
   * Does something, waits until all clients are answered again and `settled` holds, and writes down which of them lost a
   * session and which words. `may(member)`: whether it may. Everybody else keeps the session, without an error, and hears all.
   */
  async phase(name, action, { may = () => false, settled = () => true } = {}) {
    const before = this.members.map((member) => {
      const { client } = member;
      member.host = hostOf(client.socket.io.engine.id);
      return { connects: client.connects, errors: client.errors.length, disconnects: client.disconnects.length, may: may(member) };
    });
    this.talk.begin();
    const began = performance.now();
    await action();
    const isCalm = () => this.members.every(({ client }) => client.socket.connected) && this.talk.areIn() && settled(this);
    const acted = performance.now();
    let isLateSaid = false;
    await until(`${name}: all clients to be answered`, async () => {
      if (!isLateSaid && performance.now() - acted > LATE) {
        isLateSaid = true;
        this.#sayLate(name, began, before);
      }
      if (!isCalm()) return false;
      const unanswered = await this.unanswered();
      if (unanswered > 0) throw new Error(`${unanswered} are not`);
      // One that was answered may have ended since.
      return isCalm();
    }, { within: 180_000, every: 100 });
    const row = { name, lost: 0, unknown: 0, unexpected: [], reasons: {}, seconds: (performance.now() - began) / 1000 };
    this.members.forEach((member, index) => {
      const [was, { client }] = [before[index], member];
      const errors = client.errors.slice(was.errors);
      const reasons = client.disconnects.slice(was.disconnects);
      row.unknown += errors.filter((error) => error.startsWith('400')).length;
      for (const reason of reasons) row.reasons[reason] = (row.reasons[reason] ?? 0) + 1;
      if (client.connects > was.connects) row.lost++;
      if (!was.may && (errors.length > 0 || reasons.length > 0 || client.connects > was.connects)) {
        row.unexpected.push(`${member.front}, host ${member.host}, ${client.transport}: ${[...reasons, ...errors].join(', ')}`);
      }
    });
    row.allowed = before.filter((was) => was.may).length;
    await this.talk.end(name).then((words) => (row.words = words), (error) => row.unexpected.push(error.message));
    row.counted = await this.#count();
    this.rows.push(row);
    this.place.say(this.#line(row));
    row.unexpected.push(...(row.words?.faults ?? []));
    assert.deepEqual(row.unexpected, [], `${name}: only those that it concerns lose anything`);
    return row;
  }

  /** Which clients have no session, and what each has tried. */
  #sayLate(name, began, before) {
    this.members.forEach(({ client, front, host }, index) => {
      if (client.socket.connected) return;
      const { engine, _readyState: manager } = client.socket.io;
      const errors = client.errors.slice(before[index].errors).slice(-LAST_ERRORS);
      const since = ((performance.now() - began) / 1000).toFixed(1);
      const asks = `${engine?.transport?.name} ${engine?.readyState}, manager ${manager}, sid ${engine?.id ?? 'none'}`;
      this.place.say(`${name}: after ${since} s client ${index} (${front}, was at host ${host}) has no session: ${asks}; ${errors.join(' | ') || 'no errors'}`);
    });
  }

  /** What the living hosts have counted as lost since the last time. */
  async #count() {
    const [before, now] = [this.counted, await this.site.dropped()];
    this.counted = now;
    return Object.fromEntries(Object.entries(now).map(([why, count]) => [why, count - (before[why] ?? 0)]).filter(([, count]) => count > 0));
  }

  #line({ name, lost, allowed, unknown, seconds, reasons, words, counted }) {
    const list = (counts) => Object.entries(counts).map(([what, count]) => `${count} x ${what}`).join(', ');
    const clients = `${lost} of ${this.members.length} came anew (${allowed} might), ${unknown} x 400, ${seconds.toFixed(1)} s; ${list(reasons) || 'nothing lost'}`;
    const said = Object.fromEntries(Object.entries(words?.lost ?? {}).map(([why, count]) => [REASONS[why], count]));
    const heard = words && `${words.words} words, heard ${words.heard} times; ${list(said) || 'none lost'}`;
    return `${name}: ${clients}. ${heard}; haft counts ${list(counted) || 'none'}; hosts ${JSON.stringify(this.hosts())}`;
  }
}
