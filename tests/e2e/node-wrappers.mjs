// Commands that are not `node FILE`: package managers, shells, runners. Each is run as it stands, and the process that
// serves is the worker.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { assertAllStuck, crowd, failures } from './lib/crowd.mjs';
import { copy } from './lib/files.mjs';
import { Haft } from './lib/haft.mjs';
import { opened } from './lib/home.mjs';
import { versions } from './lib/node-versions.mjs';
import { freePort } from './lib/ports.mjs';
import { beside } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

const BIN = fileURLToPath(new URL('node_modules/.bin', import.meta.url));
const SERVER = 'node node-server.mjs http:127.0.0.1:0';

const SCRIPTS = {
  start: SERVER,
  serve: 'NODE_ENV=production node node-server.mjs',
  nested: 'yarn inner',
  inner: `node build.js && A=1 ${SERVER}`,
  preearly: 'node build.js',
  early: SERVER,
  crossed: `cross-env A=1 ${SERVER}`,
  mixed: `dotenv -- cross-env A=1 nodemon -q node-server.mjs http:127.0.0.1:0`,
  piped: `${SERVER} | node formatter.js`,
  optioned: `NODE_OPTIONS='--no-warnings --max-old-space-size=300' ${SERVER}`,
  crossedOptions: `cross-env NODE_OPTIONS=--no-warnings ${SERVER}`,
};

/** Commands, and whether no other process than the server's is needed for a worker. */
const COMMANDS = [
  ['npm start', true],
  ['npm run serve -- http:127.0.0.1:0', true],
  ['yarn serve http:127.0.0.1:0'],
  ['pnpm run serve http:127.0.0.1:0', true],
  ['npm run nested'],
  ['npm run early'],
  ['npm run piped'],
  ['npm run optioned', true],
  ['npm run crossedOptions', true],
  ['npm run mixed'],
  ['yarn nested'],
  ['pnpm nested'],
  ['npx tsx server.mts'],
  ['tsx server.mts'],
  ['node --import tsx server.mts', true],
  ['nodemon -q node-server.mjs http:127.0.0.1:0'],
  [`dotenv -- ${SERVER}`],
  [`cross-env A=1 ${SERVER}`],
  ['npm run crossed'],
  ['env A=1 nice node node-server.mjs http:127.0.0.1:0'],
  [`env -i PATH=${process.env.PATH} ${SERVER}`],
  ['sh start.sh'],
  ['./start.sh'],
  ['./start.mjs http:127.0.0.1:0'],
  [['sh', '-c', `node build.js && ${SERVER}; true`]],
  ['node cluster.mjs', true],
  ['sh cluster.sh'],
];

for (const [command, isDirect] of COMMANDS) {
  const words = typeof command === 'string' ? command.split(' ') : command;
  beside(`haft -- ${words.join(' ')}`, async (place) => {
    project(place);
    const haft = await start(place, process.execPath, '-w', '2', '--', ...words);
    const all = await crowd(place, haft.url, { addresses: 4, each: 2 });
    await assertAllStuck(all);
    const pids = (await haft.status()).slots.map(({ pid }) => pid);
    const serving = all.members.map(({ worker }) => worker.pid);
    if (isDirect) assert.ok(serving.every((pid) => pids.includes(pid)), 'no process stands between haft and the server');
    all.members.forEach(({ client }) => client.close());
    await haft.settled(() => opened(all.homes));
    await haft.stop();
  });
}

/** What is tried on each version of Node. npm itself does not run on all of them; yarn does. */
const ON_EACH = ['yarn nested', 'sh start.sh', 'sh cluster.sh', 'nodemon -q node-server.mjs http:127.0.0.1:0', 'sh forking.sh',
  'node --watch node-server.mjs http:127.0.0.1:0'];

for (const { name, path } of versions) {
  const commands = Number(name.match(/\d+/)[0]) >= 22 ? [...ON_EACH, 'node --run piped'] : ON_EACH;
  for (const command of commands) {
    beside(`${name}: haft -- ${command}`, async (place) => {
      project(place);
      const haft = await start(place, path, '--affinity', 'session', '-w', '2', '--', ...command.split(' '));
      const { members } = await crowd(place, haft.url, { addresses: 4, each: 2 });
      assert.equal(failures(members), 'none');
      const by = await haft.routed();
      assert.ok(by.session > 0, `sessions are found by their tags: ${JSON.stringify(by)}`);
      await haft.stop();
    });
  }
}

for (const command of ['npm run nested', 'nodemon -q node-server.mjs http:127.0.0.1:0', 'sh then.sh']) {
  beside(`a worker below "${command}" is replaced when the program dies, and at a reload`, async (place) => {
    project(place);
    const haft = await start(place, process.execPath, '-w', '2', '--', ...command.split(' '));
    const victim = await page(haft);
    process.kill(victim.worker.pid, 'SIGKILL');
    const workers = async () => (await haft.status()).slots.map(({ pid, state }) => [pid, state]);
    const before = await workers();
    await until('another worker in its slot', async () => {
      const { slots } = await haft.status();
      return slots.every(({ state, pid }, at) => state === 'ready' && (pid !== before[at][0] || at !== victim.worker.slot));
    });
    const old = (await haft.status()).slots.map(({ pid }) => pid);
    assert.equal((await haft.post('/reload')).status, 202);
    await until('new workers in all slots', async () => {
      const { slots } = await haft.status();
      return slots.every(({ state, pid }) => state === 'ready' && !old.includes(pid));
    });
    assert.ok(!old.includes((await page(haft)).worker.pid));
    await until('the end of the old ones', () => old.every((pid) => !existsSync(`/proc/${pid}`)));
    await haft.stop();
  });
}

beside('what the program starts has nothing of haft\'s', async (place) => {
  project(place);
  const haft = await start(place, process.execPath, '-w', '1', '--affinity', 'session', '--', 'sh', '-c', 'node children.mjs; true');
  await haft.child.heard(/child done/);
  const [early, late] = ['early', 'late'].map((when) => JSON.parse(readFileSync(join(place.folder, `${when}.json`))));
  assert.equal(early.served, 'child', 'a child that is started before the program listens may listen itself, after it');
  assert.deepEqual(late.names.filter((name) => /^(NODE_OPTIONS|NODE_CHANNEL|NODE_UNIQUE|HAFT_(NODE|TAG))/.test(name)), []);
  assert.equal(late.isPrimary, true);
  assert.equal((await page(haft)).worker.slot, 0);
  await haft.stop();
});

for (const { name, path } of versions) {
  const NAMED = [['named in the text', (port) => `--inspect=${port}`], ['after the host', (port) => `--inspect=127.0.0.1:${port}`]];
  for (const [where, option] of NAMED) {
    beside(`${name}: below a shell each worker's inspector has a port of its own, ${where}`, async (place) => {
      project(place);
      const port = await freePorts(2);
      const haft = await start(place, path, '-w', '2', '--', 'sh', '-c', `node ${option(port)} node-server.mjs http:127.0.0.1:0; true`);
      const { slots } = await haft.status();
      for (const slot of slots.keys()) {
        const { Browser } = await until(`the inspector of slot ${slot}`, async () => (await fetch(`http://127.0.0.1:${port + slot}/json/version`)).json());
        assert.match(Browser, /^node\.js/);
      }
      await haft.stop();
    });
  }
}

/** Answers with what the program sees of how it was started. */
const SEEN = 'require("http").createServer((_, response) => response.end(`${process.env.HAFT_SLOT} ${process.env.NODE_OPTIONS}`)).listen(0, "127.0.0.1");';

for (const { name, path } of versions.filter(({ name }) => !name.includes('18'))) {
  const major = Number(name.match(/\d+/)[0]);
  const right = { 20: '--experimental-permission', 26: '--permission --allow-net' }[major] || '--permission';
  for (const manager of ['npm run guarded', 'npx -c', 'npx guarded-program', 'sh then.sh']) {
    beside(`${name}: a program under the permission model: ${manager}`, async (place) => {
      const script = join(place.folder, 'program.js');
      writeFileSync(script, SEEN);
      const guarded = `node ${right} --allow-fs-read=${script} ${script}`;
      writeFileSync(join(place.folder, 'package.json'), JSON.stringify({ name: 'project', scripts: { guarded, preguarded: 'true' } }));
      writeFileSync(join(place.folder, 'then.sh'), `node -e 0\n${guarded}\ntrue\n`);
      // haft sees no option of Node's in this command, and learns of it when the first worker ends.
      mkdirSync(join(place.folder, 'node_modules/.bin'), { recursive: true });
      writeFileSync(join(place.folder, 'node_modules/.bin/guarded-program'), `#!/bin/sh\nexec ${guarded}\n`, { mode: 0o755 });
      const haft = await start(place, path, '-w', '2', '--affinity', 'session', '--', ...manager.split(' '), ...(manager === 'npx -c' ? [guarded] : []));
      assert.match(await (await fetch(haft.url)).text(), /^[01] undefined$/);
      assert.equal((await haft.status()).slots.length, 2);
      await haft.stop();
    });
  }
}

for (const { name, path } of versions) {
  beside(`${name}: a worker that cannot read the preload costs one start, and the next ones have it`, async (place) => {
    copy(place, 'node-server.mjs', 'node-app.cjs');
    const text = `set -- $NODE_OPTIONS; case $2 in /*) rm "$2";; esac; exec ${SERVER}`;
    const haft = await start(place, path, '-w', '2', '--affinity', 'session', '--', 'sh', '-c', text);
    const warned = haft.child.lines.filter((line) => /could not read haft's preload .*by a descriptor from now on/.test(line));
    assert.equal(warned.length, 1);
    assert.deepEqual(await haft.counts('haft_node_troubles_total', 'kind').then(({ preload_unreadable: count }) => count), 1);
    const { members } = await crowd(place, haft.url, { addresses: 4, each: 2 });
    assert.equal(failures(members), 'none');
    const by = await haft.routed();
    assert.ok(by.session > 0, `sessions are found by their tags: ${JSON.stringify(by)}`);
    assert.equal((await haft.post('/reload')).status, 202);
    await haft.child.heard(/reloaded: all new clients/);
    await haft.stop();
  });
}

beside('what speaks as Node and is none: the log names --no-preload', async (place) => {
  const { child } = new Haft(place, ['-w', '1', '--dialect', 'node', '--', 'python3', '-c', 'import time; time.sleep(60)']);
  await child.heard(/python3: haft sees no Node in the command.*--no-preload/);
  await child.end('SIGKILL');
});

beside('a wrapper that closes every descriptor is reported', async (place) => {
  project(place);
  const close = 'import subprocess; subprocess.call(["node", "node-server.mjs", "http:127.0.0.1:0"])';
  const flags = ['-w', '1', '--dialect', 'node', '--start-timeout', '4s', '--', 'python3', '-c', close];
  const { child } = new Haft(place, flags);
  await child.heard(/has closed the descriptors that it did not know.*haft -- node FILE/);
  await child.end('SIGKILL');
});

/** Starts its arguments by os/exec, and first makes what it has inherited close-on-exec where CLOSES is set. */
const GO = `package main

import (
	"os"
	"os/exec"
	"syscall"
)

func main() {
	for number := 3; number < 1024 && os.Getenv("CLOSES") != ""; number++ {
		syscall.CloseOnExec(number)
	}
	command := exec.Command(os.Args[1], os.Args[2:]...)
	command.Stdout, command.Stderr = os.Stdout, os.Stderr
	if command.Run() != nil {
		os.Exit(1)
	}
}
`;

beside('a program of Go that starts node', async (place) => {
  project(place);
  writeFileSync(join(place.folder, 'wrapper.go'), GO);
  const env = { ...process.env, CGO_ENABLED: '0', GO111MODULE: 'off', GOFLAGS: '', GOCACHE: join(place.folder, 'go-cache') };
  execFileSync('go', ['build', '-o', 'wrapper', 'wrapper.go'], { cwd: place.folder, env });
  const words = ['./wrapper', ...SERVER.split(' ')];
  // Its os/exec leaves alone what the program has inherited.
  const haft = await start(place, process.execPath, '-w', '2', '--', ...words);
  await assertAllStuck(await crowd(place, haft.url, { addresses: 4, each: 2 }));
  await haft.stop();
  const { child } = new Haft(place, ['-w', '1', '--start-timeout', '4s', '--', 'env', 'CLOSES=1', ...words]);
  await child.heard(/has closed the descriptors that it did not know.*haft -- node FILE/);
  await child.heard(/not ready within --start-timeout: it listens by itself on 127\.0\.0\.1:\d+/);
  assert.ok(!child.lines.some((line) => /SIGSEGV|EBADF/.test(line)), child.tail());
  await child.end('SIGKILL');
});

beside('--no-preload below a wrapper is reported', async (place) => {
  project(place);
  const { child } = new Haft(place, ['-w', '1', '--no-preload', '--', 'npm', 'run', 'nested']);
  await child.heard(/npm: with --no-preload the first process of Node that it starts keeps the channel: .*haft -- node FILE/);
  await child.end();
});

beside('a script that is not there is named, with those that are', async (place) => {
  project(place);
  const { child } = new Haft(place, ['--', 'npm', 'run', 'sreve']);
  const { code } = await child.exited;
  assert.ok(code === 1 || code === 2, `it fails: ${code}`);
  assert.match(child.tail(), /package\.json has no script "sreve"; it has: crossed, crossedOptions, early, inner, mixed, nested, optioned, piped, preearly, serve, start/);
});

/** The first of so many ports that follow each other and are free. */
async function freePorts(count) {
  return until('free ports in a row', async () => {
    const first = await freePort();
    for (let port = first + 1; port < first + count; port++) await listenOnce(port);
    return first;
  });
}

function listenOnce(port) {
  return new Promise((resolve, reject) => {
    const server = createServer().on('error', reject).listen(port, '127.0.0.1', () => server.close(resolve));
  });
}

/** haft, with this Node and the installed programs in PATH. */
async function start(place, node, ...flags) {
  // There is a node among the installed programs, too.
  const path = [dirname(node), BIN, process.env.PATH].join(delimiter);
  const haft = new Haft(place, flags, { under: ['env', `PATH=${path}`] });
  await haft.ready();
  return haft;
}

async function page(haft) {
  return until('an answer of a worker', async () => (await fetch(`${haft.url}/haft/page.json`, { headers: { connection: 'close' } })).json());
}

/** A project in the test's folder. */
function project(place) {
  copy(place, 'node-server.mjs', 'node-app.cjs');
  const write = (name, text, mode = 0o644) => {
    writeFileSync(join(place.folder, name), text);
    chmodSync(join(place.folder, name), mode);
  };
  write('package.json', JSON.stringify({ name: 'project', version: '1.0.0', scripts: SCRIPTS }));
  // Each is itself a process of Node, and not the server.
  write('build.js', 'setTimeout(() => console.log("built"), 50);');
  write('formatter.js', 'process.stdin.pipe(process.stdout);');
  write('start.sh', `#!/bin/sh\nset -e\nnode build.js\nexec ${SERVER}\n`, 0o755);
  write('then.sh', `${SERVER}\ntrue\n`);
  write('start.mjs', '#!/usr/bin/env node\nimport "./node-server.mjs";\n', 0o755);
  write('server.mts', 'const place: string = "http:127.0.0.1:0";\nprocess.argv.push(place);\nawait import("./node-server.mjs");\n');
  // It looks at the module before it listens, and by its names.
  write('cluster.mjs', 'import { isPrimary, isWorker, worker } from "node:cluster";\nif (isPrimary || !isWorker || !(worker?.id > 0)) throw new Error("no worker");\n'
    + 'process.argv.push("http:127.0.0.1:0");\nawait import("./node-server.mjs");\n');
  write('cluster.sh', 'node cluster.mjs; true\n');
  // It has a channel of its own to the process that serves.
  write('forking.cjs', 'require("child_process").fork("node-server.mjs", ["http:127.0.0.1:0"]).on("exit", process.exit);');
  write('forking.sh', 'node forking.cjs; true\n');
  write('child.mjs', CHILD);
  write('children.mjs', CHILDREN);
}

/** Writes what it sees of haft, and serves for a moment. */
const CHILD = `
import { writeFileSync } from 'node:fs';
import http from 'node:http';
const [, , name, wait] = process.argv;
const names = Object.keys(process.env);
if (wait) await new Promise((resolve) => process.stdin.once('end', resolve).resume());
const server = http.createServer((_, response) => response.end('child')).listen(0, '127.0.0.1', async () => {
  const { default: cluster } = await import('node:cluster');
  const served = await (await fetch(\`http://127.0.0.1:\${server.address().port}/\`)).text();
  writeFileSync(name, JSON.stringify({ names, served, isPrimary: cluster.isPrimary }));
  process.exit();
});
`;

const CHILDREN = `
import { spawn } from 'node:child_process';
const start = (...args) => spawn(process.execPath, ['child.mjs', ...args], { stdio: ['pipe', 'inherit', 'inherit'] });
const early = start('early.json', 'wait');
process.argv.push('http:127.0.0.1:0');
await import('./node-server.mjs');
await new Promise((resolve) => setTimeout(resolve, 200));
early.stdin.end();
early.on('exit', () => start('late.json').on('exit', () => console.log('child done')));
`;
