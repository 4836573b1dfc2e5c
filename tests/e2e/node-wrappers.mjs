// Commands that are not `node FILE`: package managers, shells, scripts. What serves is what they would run.

import assert from 'node:assert/strict';
import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { assertAllStuck, crowd } from './lib/crowd.mjs';
import { Haft } from './lib/haft.mjs';
import { opened } from './lib/home.mjs';
import { copy } from './lib/node-haft.mjs';
import { program } from './lib/program.mjs';

const SERVER = 'node node-server.mjs http:127.0.0.1:0';

const SCRIPTS = {
  start: SERVER,
  serve: 'NODE_ENV=production node node-server.mjs',
  nested: 'npm start',
  crossed: `cross-env A=1 ${SERVER}`,
  built: `node build.js && ${SERVER}`,
  piped: `${SERVER} | node formatter.js`,
};

/** The command, and what is said of it. */
const COMMANDS = [
  ['npm start', /npm start is run as: .*node node-server\.mjs/],
  ['npm run serve -- http:127.0.0.1:0', /npm run serve is run as: /],
  ['npm run nested', /npm run nested is run as: /],
  ['npm run crossed', /npm run crossed is run as: .*env A=1 node/],
  ['npm run built', /npm run built is run as: /],
  ['npm run piped', /npm run piped is run as: /],
  ['yarn start', /yarn start is run as: /],
  ['pnpm serve http:127.0.0.1:0', /pnpm serve is run as: /],
  ['env A=1 nice node node-server.mjs http:127.0.0.1:0'],
  ['env -i PATH=/usr/local/bin:/usr/bin:/bin node node-server.mjs http:127.0.0.1:0'],
  ['sh start.sh'],
  ['./start.sh'],
  ['./start.mjs http:127.0.0.1:0'],
];

for (const [command, said] of COMMANDS) {
  program(`haft -- ${command}`, async (place) => {
    project(place);
    const haft = await place.haft('-w', '2', '--', ...command.split(' '));
    const all = await crowd(place, haft.url, { addresses: 8, each: 2 });
    await assertAllStuck(all);
    all.members.forEach(({ client }) => client.close());
    await haft.settled(() => opened(all.homes));
    const told = haft.child.lines.filter((line) => line.includes(' is run as: '));
    assert.equal(told.length, said ? 1 : 0, `it is said once what is run instead:\n${told.join('\n')}`);
    if (said) assert.match(told[0], said);
    await haft.stop();
  });
}

program('a script that is not there is named, with those that are', async (place) => {
  project(place);
  const { child } = new Haft(place, ['--', 'npm', 'run', 'sreve']);
  const { code } = await child.exited;
  assert.ok(code === 1 || code === 2, `it fails: ${code}`);
  assert.match(child.tail(), /package\.json has no script "sreve"; it has: built, crossed, nested, piped, serve, start/);
});

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
  write('start.sh', `#!/bin/sh\nset -e\ncd .\nexec ${SERVER}\n`, 0o755);
  write('start.mjs', '#!/usr/bin/env node\nimport "./node-server.mjs";\n', 0o755);
}
