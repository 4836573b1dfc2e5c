// Versions of Node to run programs on, as npm packages carry them.

import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const WANTED = [18, 20, 22, 24, 26];

/** `[{ name, path }]`. The packages are for x86-64; elsewhere there is only the Node that runs the tests. */
export const versions = WANTED.map((major) => ({ name: `Node ${major}`, path: packaged(major) }))
  .filter(({ path }) => existsSync(path))
  .concat(process.arch === 'x64' ? [] : [{ name: `Node ${process.version}`, path: process.execPath }]);

if (process.arch === 'x64' && versions.length < WANTED.length) {
  throw new Error('npm ci has not installed all versions of Node');
}

function packaged(major) {
  return fileURLToPath(new URL(`../node_modules/node-${major}/bin/node`, import.meta.url));
}
