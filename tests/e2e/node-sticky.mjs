// The drop-in: an unmodified Socket.IO server in four processes, for every version of Node in service. The same program
// under Node's own cluster must fail, or a success here would show nothing.

import { assertAllServed, assertMostUnknown, crowd, failures } from './lib/crowd.mjs';
import { file } from './lib/files.mjs';
import { versions } from './lib/node-versions.mjs';
import { program } from './lib/program.mjs';

const SERVER = file('node-server.mjs');

for (const { name, path } of versions) {
  program(`${name}: 420 clients from 60 addresses stay on their worker`, async (place) => {
    const haft = await place.haft('-w', '4', '--', path, SERVER, 'http:3000');
    await assertAllServed(place, haft, { each: 7 });
  });
}

for (const { name, path } of versions) {
  program(`${name}, its own cluster: most polling clients fail with 400`, async (place) => {
    const cluster = place.child(path, file('node-primary.mjs'), '4', SERVER, 'http:127.0.0.1:0');
    const [[, address]] = await cluster.heard(/^listening on (\S+)/);
    const { members } = await crowd(place, `http://${address}`, { each: 2, pollingOnly: true, options: { reconnection: false } });
    assertMostUnknown(members);
    place.say(failures(members));
  });
}
