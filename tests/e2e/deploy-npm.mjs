// The npm packages, installed from their tarballs by each package manager, without a registry.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { artefact } from './lib/artefacts.mjs';
import { alive } from './lib/haft.mjs';
import { versions } from './lib/node-versions.mjs';
import { program } from './lib/program.mjs';
import { within } from './lib/wait.mjs';

const bin = fileURLToPath(new URL('node_modules/.bin', import.meta.url));
const HAFT = artefact(/^haft-\d[\d.]*\.tgz$/);
const PROCESSOR = artefact(new RegExp(`^haft-linux-${process.arch}-.*\\.tgz$`));
const SERVER = `require('node:http').createServer((_, response) => response.end('served by ' + process.ppid)).listen(0, '127.0.0.1');`;
const START = 'haft -w 2 -- node server.js';

/** What installs the tarballs without asking a registry, and what then runs haft: `yarn run` takes the `--` away. */
const MANAGERS = {
  npm: { install: ['npm', 'install', '--offline', '--no-audit', '--no-fund', HAFT, PROCESSOR], run: ['npx', '--no-install'], start: ['npm', 'start'] },
  pnpm: { install: ['pnpm', 'install', '--offline', '--ignore-workspace'], run: ['pnpm', 'exec'], start: ['pnpm', 'start'] },
  yarn: { install: ['yarn', 'install', '--offline', '--no-lockfile', '--ignore-engines'], run: ['npx', '--no-install'], start: ['yarn', '--silent', 'start'] },
};

function project(place, name, manager) {
  const folder = join(place.folder, name);
  mkdirSync(folder);
  const [, processor] = PROCESSOR.match(/haft-(linux-\w+)-/);
  const files = { haft: `file:${HAFT}`, [`@haft/${processor}`]: `file:${PROCESSOR}` };
  const manifest = { name: 'app', version: '1.0.0', private: true, scripts: { start: START } };
  if (manager !== 'npm') Object.assign(manifest, { dependencies: files, resolutions: files, pnpm: { overrides: files } });
  writeFileSync(join(folder, 'package.json'), JSON.stringify(manifest));
  writeFileSync(join(folder, 'server.js'), SERVER);
  return folder;
}

function install(folder, { install: [command, ...args] }) {
  execFileSync(command, args, { cwd: folder, env: environment(), encoding: 'utf8', stdio: 'pipe' });
}

function environment(node) {
  const path = [...(node ? [node.replace(/\/node$/, '')] : []), process.env.PATH, bin].join(':');
  return { ...process.env, PATH: path, COREPACK_ENABLE_STRICT: '0', npm_config_update_notifier: 'false' };
}

/** Starts it, asks for a page, and stops it by its own process, which must be a master of its own. Yields when the page came. */
async function serves(place, folder, words, node) {
  const child = place.child('env', `PATH=${environment(node).PATH}`, 'sh', '-c', 'cd "$0" && exec "$@"', folder, ...words);
  const [[, url]] = await child.heard(/listening on (http:\/\/\S+)/);
  const answer = await fetch(url, { headers: { connection: 'close' } });
  const [, master] = (await answer.text()).match(/^served by (\d+)$/).map(Number);
  const served = performance.now();
  process.kill(master, 'SIGTERM');
  assert.deepEqual(await within(60_000, 'its end', child.exited), { code: 0, signal: null }, 'what started haft ends as haft does');
  assert.ok(!alive(master));
  return served;
}

for (const [name, manager] of Object.entries(MANAGERS)) {
  program(`${name} installs haft, runs it, and starts it from a script in package.json`, async (place) => {
    const folder = project(place, name, name);
    const began = performance.now();
    install(folder, manager);
    const served = await serves(place, folder, [...manager.run, ...START.split(' ')]);
    place.say(`${name} install of the tarballs to a served page: ${((served - began) / 1000).toFixed(1)} s`);
    const [command, ...args] = manager.run;
    const version = execFileSync(command, [...args, 'haft', '--version'], { cwd: folder, env: environment(), encoding: 'utf8' });
    assert.match(version, /^haft \d+\.\d+\.\d+$/m);
    await serves(place, folder, manager.start);
  });
}

program('every version of Node can run it, and a signal to its first process reaches haft', async (place) => {
  const folder = project(place, 'versions', 'npm');
  install(folder, MANAGERS.npm);
  for (const { name, path } of versions) {
    const launcher = join(folder, 'node_modules/haft/bin/haft.js');
    const child = place.child(path, launcher, '-w', '1', '-l', '127.0.0.1:0');
    await child.heard(/worker is ready/);
    assert.deepEqual(await child.end('SIGTERM'), { code: 0, signal: null }, name);
    const failed = spawnSync(path, [launcher, '--no-such-flag'], { encoding: 'utf8' });
    assert.equal(failed.status, 2, `${name}: haft's exit code is passed on`);
    assert.equal(failed.stderr.includes('Warning'), false, failed.stderr);
  }
});

program('elsewhere it says what is missing', async (place) => {
  const folder = project(place, 'elsewhere', 'npm');
  install(folder, MANAGERS.npm);
  const launch = (before) => {
    const script = `${before}; process.argv = ['node', 'haft', '--version']; require('haft/bin/haft.js')`;
    return spawnSync(process.execPath, ['-e', script], { cwd: folder, encoding: 'utf8' });
  };
  const other = launch(`Object.defineProperty(process, 'platform', { value: 'darwin' })`);
  assert.equal(other.status, 1);
  assert.match(other.stderr, new RegExp(`there is no haft program for darwin-${process.arch}, only for linux-`));
  for (const each of readdirSync(join(folder, 'node_modules/@haft'))) rmSync(join(folder, 'node_modules/@haft', each), { recursive: true });
  const missing = launch('');
  assert.equal(missing.status, 1);
  assert.match(missing.stderr, /the package @haft\/linux-\w+ [\d.]+ is not installed: install haft again without --omit=optional/);
});
