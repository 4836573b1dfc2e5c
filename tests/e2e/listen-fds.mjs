// Servers that know nothing of haft and take a listener over, as from systemd: each becomes four sticky processes.

import { dirname } from 'node:path';

import { assertAllServed } from './lib/crowd.mjs';
import { file } from './lib/files.mjs';
import { program } from './lib/program.mjs';

const KERNEL = ['-w', '4', '--dispatch', 'kernel', '--dialect', 'listen-fds'];
const FOLDER = dirname(file('any_app.py'));

program('uvicorn --fd 3, with python-socketio', async (place) => {
  const haft = await place.haft(...KERNEL, '--', 'uvicorn', '--fd', '3', '--app-dir', FOLDER, 'any_app:app');
  await assertAllServed(place, haft, { byKernel: true });
});

program('gunicorn -w 1, with python-socketio', async (place) => {
  const command = ['gunicorn', '-w', '1', '-k', 'uvicorn.workers.UvicornWorker', '--chdir', FOLDER, 'any_app:app'];
  // It says itself when it is ready.
  const haft = await place.haft(...KERNEL, '--wait-ready', '--', ...command);
  await assertAllServed(place, haft, { byKernel: true });
});
