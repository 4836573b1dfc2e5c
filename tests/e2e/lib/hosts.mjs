// Three or four hosts with a haft each behind two proxies, as `haft front` says that they are to be, and a crowd of clients
// with a ledger of what each lost and why.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { BINARY } from './haft.mjs';
import { fetchText } from './fetch.mjs';
import { Home } from './home.mjs';
import { network } from './network.mjs';
import { inTurns, until } from './wait.mjs';

const HOSTS = ['A', 'B', 'C', 'D'];
const FRONTS = ['f1', 'f2'];
const [HAFT_PORT, ADMIN_PORT, FRONT_PORT] = [3000, 9090, 8080];
const AT_ONCE = 30;

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
    this.net = network(place, [...HOSTS, ...FRONTS]);
    // What connects to a machine that is gone would keep this program from its end.
    place.atEnd(() => place.clients.forEach(({ home }) => home.end()));
    this.hafts = {};
    this.fronts = {};
    this.key = join(place.folder, 'tag-key');
    writeFileSync(this.key, 'a-secret-that-all-hosts-have\n');
    chmodSync(this.key, 0o600);
  }

  /** Starts a haft on each of these hosts, and the proxies before them. */
  async start(hosts) {
    this.names = hosts;
    await Promise.all(hosts.map((host) => this.#startHost(host)));
    for (const name of FRONTS) await this.startFront(name);
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
    this.hafts[host] = this.net.child(host, BINARY, '-w', '2', ...flags, '--drain-timeout', '5s', ...program);
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
    const child = this.net.child(name, executable(this.kind), ...args[this.kind]);
    this.fronts[name] = child;
    const home = new Home(undefined);
    await until(`${name} to reach a host`, async () => {
      child.mustRun();
      await fetchText(new URL('/haft/page.json', this.url(name)), home);
      return true;
    });
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
  }

  async arrive() {
    await inTurns(this.members, AT_ONCE, async (member) => {
      const transports = member.upgrades ? ['polling', 'websocket'] : ['polling'];
      member.client = this.place.client(this.site.url(member.front), member.home, { transports, query: {} });
      await member.client.connected();
      if (member.upgrades) await member.client.upgraded();
    });
  }

  /** Everybody is with a host, and is answered there. */
  async talk() {
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
   * session. `may(member)`: whether it may. Everybody else keeps the session, without an error.
   */
  async phase(name, action, { may = () => false, settled = () => true } = {}) {
    const before = this.members.map((member) => {
      const { client } = member;
      member.host = hostOf(client.socket.io.engine.id);
      return { connects: client.connects, errors: client.errors.length, disconnects: client.disconnects.length, may: may(member) };
    });
    const began = Date.now();
    await action();
    const isCalm = () => this.members.every(({ client }) => client.socket.connected) && settled(this);
    await until(`${name}: all clients to be answered`, async () => {
      if (!isCalm()) return false;
      const unanswered = await this.unanswered();
      if (unanswered > 0) throw new Error(`${unanswered} are not`);
      // One that was answered may have ended since.
      return isCalm();
    }, { within: 180_000, every: 100 });
    const took = Date.now() - began;
    const row = { name, lost: 0, unknown: 0, unexpected: [], seconds: (took / 1000).toFixed(1), reasons: {} };
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
    this.rows.push(row);
    const reasons = Object.entries(row.reasons).map(([reason, count]) => `${count} x ${reason}`).join(', ');
    this.place.say(`${name}: ${row.lost} of ${this.members.length} came anew (${row.allowed} might), ${row.unknown} x 400, ${row.seconds} s; ${reasons || 'nothing lost'}; hosts ${JSON.stringify(this.hosts())}`);
    assert.deepEqual(row.unexpected, [], `${name}: only those that it concerns lose anything`);
    return row;
  }
}
