// Several hosts with a haft each, behind two proxies whose configuration `haft front` wrote, and a Redis between them: each
// session stays with its host while nothing is cut, and what is cut concerns its own clients alone. What one client says to
// all arrives, in order, wherever both live.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { fetchText } from './lib/fetch.mjs';
import { Home } from './lib/home.mjs';
import { Crowd, Site, executable, front, hostOf } from './lib/hosts.mjs';
import { file } from './lib/files.mjs';
import { program } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const CLIENTS = Number(process.env.HAFT_HOSTS_CLIENTS ?? 120);
const NODE = [process.execPath, file('session-server.cjs')];
const MINUTES = 8;

for (const kind of ['haproxy', 'nginx']) {
  program(`${kind} takes what haft front writes, for 1, 3 and 100 hosts`, async (place) => {
    for (const count of [1, 3, 100]) {
      const id = (index) => `${Math.floor(index / 10)}${'ABCDEFGHIJ'[index % 10]}`;
      const hosts = Array.from({ length: count }, (_, index) => `--host=${id(index)}=10.0.0.${index + 1}:3000`);
      const variants = kind === 'haproxy' ? [[], ['--client=proxy', '--listen=127.0.0.1:8080']] : [[], ['--listen=127.0.0.1:8080']];
      for (const flags of variants) {
        const path = join(place.folder, 'front.conf');
        writeFileSync(path, front(kind, ...hosts, ...flags));
        const check = { haproxy: ['-c', '-f', path], nginx: ['-t', '-e', 'stderr', '-g', `pid ${place.folder}/pid;`, '-c', path] };
        const { status, stderr, stdout } = spawnSync(executable(kind), check[kind], { encoding: 'utf8' });
        assert.equal(status, 0, `${stdout}${stderr}`);
        assert.doesNotMatch(`${stdout}${stderr}`, /\[(WARNING|warn)\]/, 'it has nothing to complain of');
      }
    }
  });
}

program('a session of another host gets 400 and an end of its connection, is counted, and logged once', async (place) => {
  for (const command of [[], NODE]) {
    const site = new Site(place, 'haproxy', command);
    await site.start(['A', 'B']);
    const client = place.client(site.url('f1'), new Home(site.net.clientAddresses()[0]), { transports: ['polling'] });
    await client.connected();
    const sid = client.socket.io.engine.id;
    const other = hostOf(sid) === 'A' ? 'B' : 'A';
    for (let index = 0; index < 3; index++) {
      const answer = await fetch(`http://${site.net.address(other)}:3000/socket.io/?EIO=4&transport=polling&sid=${sid}`, { keepalive: false });
      assert.equal(answer.status, 400);
      assert.equal(answer.headers.get('connection'), 'close');
    }
    assert.equal((await site.status(other)).routing.other_hosts, 3);
    await site.hafts[other].heard(/with a session of host 0.: the proxy in front/);
    const told = site.hafts[other].lines.filter((line) => line.includes('a session of host'));
    assert.equal(told.length, 1, told.join('\n'));
    client.close();
    await Promise.all([...Object.values(site.hafts), ...Object.values(site.fronts)].map((child) => child.end('SIGTERM')));
  }
});

for (const [kind, workers, command] of [
  ['haproxy', 'Node', NODE],
  ['haproxy', 'built-in workers', []],
  ['nginx', 'Node', NODE],
]) {
  program(`three hosts with ${workers} behind two ${kind}, ${CLIENTS} clients`, (place) => siege(place, kind, command), { minutes: MINUTES });
}

async function siege(place, kind, command) {
  const site = new Site(place, kind, command);
  await site.start(['A', 'B', 'C']);
  const crowd = new Crowd(place, site, CLIENTS);
  await crowd.arrive();
  const spread = crowd.hosts();
  assert.deepEqual(Object.keys(spread).sort(), ['A', 'B', 'C'], 'each host has clients');
  await crowd.gather();

  const quiet = await crowd.phase('nothing is cut', () => crowd.converse());
  assert.deepEqual([quiet.words.lost, quiet.counted], [{}, {}], 'all hear all');
  await crowd.phase('a front is reloaded', () => site.reloadFront('f1'));
  await crowd.phase('a fourth host', async () => {
    await site.addHost('D');
    // New clients come to it.
    await until('a client of the fourth host', async () => {
      const homes = site.net.clientAddresses().map((address) => new Home(address));
      const sids = await Promise.all(homes.map((home) => fetchText(new URL('/socket.io/?EIO=4&transport=polling', site.url('f2')), home)));
      return sids.some((text) => hostOf(JSON.parse(text.slice(1)).sid) === 'D');
    });
  });
  await redisRestarted(site, crowd);
  for (const host of ['A', 'B', 'C', 'D']) await crowd.phase(`a new haft on host ${host}`, () => site.replace(host), { may: isOf(host) });
  await crowd.phase('a new program on host A', () => site.reload('A'), { may: isOf('A') });

  const gone = (host) => (crowd) => !(host in crowd.hosts());
  await crowd.phase("kill -9 of a host's haft", async () => {
    site.lose('B');
    await site.hafts.B.end('SIGKILL');
  }, { may: isOf('B'), settled: gone('B') });
  if (site.net.canCut) {
    await crowd.phase('a host is cut off', () => {
      site.lose('C');
      site.net.cut('C');
    }, { may: isOf('C'), settled: gone('C') });
    await crowd.phase('kill -9 of a front, whose address the other takes', async () => {
      await site.net.kill('f1');
      site.net.takeOver('f1', 'f2');
    }, { may: ({ front }) => front === 'f1' });
  }
  const last = await crowd.phase('after all', () => crowd.converse());
  assert.deepEqual([last.words.lost, last.counted], [{}, {}], 'all hear all again');
}

const isOf = (name) => ({ host }) => host === name;

/** Redis ends and is there again. Each host's own clients hear each other meanwhile, and then all do. */
async function redisRestarted(site, crowd) {
  let back;
  const row = await crowd.phase('Redis is restarted', async () => {
    await crowd.talk.settled('before Redis ends');
    crowd.talk.isRedisAway = true;
    crowd.talk.resume();
    await site.redis.end('SIGTERM');
    crowd.talk.burst();
    await site.startRedis();
    back = performance.now();
    await site.linked(1);
    crowd.talk.isRedisAway = false;
  });
  assert.ok(row.words.lost.redis > 0, 'what was said to other hosts without Redis is lost');
  const lost = Object.entries(row.counted).filter(([why]) => why !== 'redis' && why !== 'missed');
  assert.deepEqual(lost, [], 'for one reason');
  const late = Math.max(0, row.words.lastLost - back) / 1000;
  crowd.place.say(`the last word that was lost was said ${late.toFixed(1)} s after Redis was back`);
}
