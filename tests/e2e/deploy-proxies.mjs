// The files of deploy/proxies, each run as it is but for its ports, in front of haft with the flags that it names.

import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { assertAllStuck, crowd } from './lib/crowd.mjs';
import { Haft } from './lib/haft.mjs';
import { file } from './lib/files.mjs';
import { beside } from './lib/program.mjs';
import { executable, nginxAround, onFreePorts } from './lib/proxies.mjs';

const FOLDER = fileURLToPath(new URL('../../deploy/proxies', import.meta.url));

const START = {
  'nginx.conf': (place, path) => place.child(executable('nginx'), '-e', 'stderr', '-p', place.folder, '-c', nginxAround(place, path, 'http')),
  'nginx-stream.conf': (place, path) => place.child(executable('nginx'), '-e', 'stderr', '-p', place.folder, '-c', nginxAround(place, path, 'top')),
  'haproxy.cfg': (place, path) => place.child(executable('haproxy'), '-db', '-f', path),
  'haproxy-http.cfg': (place, path) => place.child(executable('haproxy'), '-db', '-f', path),
  Caddyfile: (place, path) => place.child(executable('caddy'), 'run', '--adapter', 'caddyfile', '--config', path),
};

beside('there is a test for each file', () => {
  const files = readdirSync(FOLDER).filter((name) => name !== 'README.md');
  assert.deepEqual(files.sort(), Object.keys(START).sort());
});

/** haft with the flags, and a proxy before it, which `start` starts with an address to listen on. Checks which worker serves which client. */
async function serves(place, flags, start) {
  const haft = new Haft(place, ['-w', '3', ...flags.split(' '), '--', 'node', file('session-server.cjs')]);
  await haft.ready();
  const { web } = await onFreePorts(place, ['web'], ({ web }) => start(haft.address, web));
  const all = await crowd(place, `http://${web}`, { addresses: 6, each: 2 });
  await assertAllStuck(all);
  for (const { client, home } of all.members) {
    const { handshake } = await client.hello();
    assert.equal(handshake, home.address, 'handshake.address');
    client.close();
  }
  assert.ok(new Set(all.members.map(({ worker }) => worker.slot)).size > 1, 'more than one slot has clients');
  await haft.stop();
}

for (const [name, start] of Object.entries(START)) {
  beside(`${name}: each client reaches its worker, and the program sees its address`, async (place) => {
    const text = readFileSync(join(FOLDER, name), 'utf8');
    const [, flags] = text.match(/^# {5}haft -l 127\.0\.0\.1:3000 (.*) -- node server\.js$/m) ?? assert.fail('it names flags');
    await serves(place, flags, (address, web) => {
      const path = join(place.folder, name);
      writeFileSync(path, text.replaceAll('127.0.0.1:3000', address).replaceAll('127.0.0.1:8080', web));
      return start(place, path);
    });
  });
}

beside('the proxy of compose.yaml does the same', async (place) => {
  const text = readFileSync(join(FOLDER, '../docker/nginx.conf'), 'utf8');
  await serves(place, '--client-ip-header x-forwarded-for --trusted-proxy 127.0.0.1', (address, web) => {
    const path = join(place.folder, 'nginx.conf');
    writeFileSync(path, text.replace('app:3000', address).replace('listen 8080;', `listen ${web};`));
    const directives = `daemon off; master_process off; pid ${place.folder}/nginx.pid; error_log stderr;`;
    return place.child(executable('nginx'), '-e', 'stderr', '-g', directives, '-c', path);
  });
});
