// What cannot be sticky below haft is reported, with what to change, and never silently spread.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { copy } from './lib/files.mjs';
import { Haft } from './lib/haft.mjs';
import { versions } from './lib/node-versions.mjs';
import { beside } from './lib/program.mjs';
import { until } from './lib/wait.mjs';

/** How often this kind of trouble was counted. */
const metric = ({ body }, kind) => Number(body.match(new RegExp(`^haft_node_troubles_total\\{kind="${kind}"\\} (\\d+)$`, 'm'))[1]);
const BIN = fileURLToPath(new URL('node_modules/.bin', import.meta.url));
const newest = versions.at(-1).path;
const LISTEN = (options) => `require('http').createServer().listen(${options});`;

/** A program, the Node that it needs, the line about it, and the kind that is counted. */
const TROUBLES = {
  exclusive: [LISTEN('{ port: 0, exclusive: true }'), newest, /listens with `exclusive: true`.*Leave that option out/, 'exclusive'],
  reusePort: [LISTEN('{ port: 0, reusePort: true }'), newest, /listens with `reusePort: true`.*Leave that option out/, 'reuse_port'],
  'a bound socket': [
    LISTEN('new (require("net").BoundSocket)({ port: 0 })'), newest, /it has bound by itself.*Give the port and the address/, 'bound_socket',
  ],
  'a primary': [
    'const cluster = require("cluster"); cluster.setupPrimary({ exec: "worker.js" }); cluster.fork();',
    newest, /the program is a primary.*Give haft the file of the worker/, 'primary',
  ],
  'a program that forks its servers': [
    'require("child_process").fork("serve.js");', newest, /(starts processes by child_process\.fork|no process of it has listened).*haft -- node FILE/, ['fork', 'never_listens'],
  ],
  'a server in a thread': [
    'const w = require("worker_threads"); require("http").createServer().listen(0);'
    + 'const text = "setTimeout(() => require(`http`).createServer().on(`error`, () => {}).listen({ port: 34567, host: `127.0.0.1` }), 100)";'
    + 'new w.Worker(text, { eval: true });',
    newest, /a thread of the program \(worker_threads\) listens by itself.*main thread listen/, 'thread',
  ],
  'a program that listens without Node': [
    'require("child_process").spawn("python3", ["-c", "import socket, time; s = socket.create_server((\'127.0.0.1\', 0)); time.sleep(60)"]);',
    newest, /listens by itself on 127\.0\.0\.1:\d+, and not on a server of haft's/, 'own_listener',
  ],
};

for (const [name, [text, node, told, kind]] of Object.entries(TROUBLES)) {
  for (const wrapped of [false, true]) {
    beside(`${name}${wrapped ? ', below a shell,' : ''} is reported`, async (place) => {
      writeFileSync(join(place.folder, 'program.js'), text);
      writeFileSync(join(place.folder, 'serve.js'), 'setInterval(() => {}, 1000);');
      const command = wrapped ? ['sh', '-c', `${node} program.js; true`] : [node, 'program.js'];
      const haft = new Haft(place, ['-w', '1', '--start-timeout', '2s', '--', ...command]);
      const { child } = haft;
      await child.heard(told);
      const counted = [kind].flat().at(wrapped ? -1 : 0);
      await until(`${counted} to be counted`, async () => metric(await haft.get('/metrics'), counted) >= 1);
      assert.equal(child.lines.filter((line) => / WARN .*(`|primary|bound by itself)/.test(line)).length <= 1, true, 'told once');
      await child.end('SIGKILL');
    });
  }
}

beside('a Socket.IO in a bundle is reported with --affinity session, and only there', async (place) => {
  copy(place, 'node-server.mjs', 'node-app.cjs');
  execFileSync(join(BIN, 'esbuild'), ['node-server.mjs', '--bundle', '--platform=node', '--format=esm', '--outfile=bundle.mjs', '--log-level=error',
    '--banner:js=import { createRequire } from "node:module"; const require = createRequire(import.meta.url);'], { cwd: place.folder });
  const told = (haft) => haft.child.lines.filter((line) => /Socket\.IO is in a file of its own making.*--affinity ip/.test(line)).length;
  const ask = async (haft) => (await fetch(`${haft.url}/socket.io/?EIO=4&transport=polling`)).text();
  const session = await place.haft('--affinity', 'session', '-w', '1', '--', newest, 'bundle.mjs', 'http:127.0.0.1:0');
  for (let n = 0; n < 3; n++) assert.match(await ask(session), /"sid"/);
  await session.child.heard(/Socket\.IO is in a file of its own making/);
  await session.stop();
  assert.equal(told(session), 1);
  for (const [file, affinity] of [['bundle.mjs', 'ip'], ['node-server.mjs', 'session']]) {
    const haft = await place.haft('--affinity', affinity, '-w', '1', '--', newest, file, 'http:127.0.0.1:0');
    assert.match(await ask(haft), /"sid"/);
    await haft.child.end();
    assert.equal(told(haft), 0, `${file} with --affinity ${affinity}`);
  }
});

/** Node's permission model: by the command line, below a shell, and by NODE_OPTIONS of the script. */
for (const { name, path } of versions.filter(({ name }) => !name.includes('18'))) {
  const major = Number(name.match(/\d+/)[0]);
  const flag = major >= 26 ? '--permission --allow-net' : major > 20 ? '--permission' : '--experimental-permission';
  const server = 'require("http").createServer((_, response) => response.end("served")).listen(0, "127.0.0.1");';
  for (const [how, command] of [
    ['node', (file) => [path, ...flag.split(' '), `--allow-fs-read=${file}`, file]],
    ['sh', (file) => ['sh', '-c', `${path} ${flag} --allow-fs-read=${file} ${file}; true`]],
    ['NODE_OPTIONS', (file) => [path, file]],
  ]) {
    beside(`${name}: a program under the permission model, started by ${how}`, async (place) => {
      const file = join(place.folder, 'program.js');
      writeFileSync(file, server);
      const inherited = how === 'NODE_OPTIONS' ? [`NODE_OPTIONS=${flag} --allow-fs-read=${file}`] : [`PATH=${BIN}:${process.env.PATH}`];
      const flags = ['-w', '1', '--affinity', 'session', '--', ...command(file)];
      const haft = new Haft(place, flags, { under: ['env', ...inherited] });
      await haft.ready();
      assert.equal(await (await fetch(haft.url)).text(), 'served');
      await haft.stop();
    });
  }
}
