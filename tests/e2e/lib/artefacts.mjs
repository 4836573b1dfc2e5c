// What deploy/build.sh has made.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const FOLDER = process.env.ARTEFACTS ?? fileURLToPath(new URL('../../../target/deploy', import.meta.url));

/** The path of the one file whose name is like this. */
export function artefact(pattern) {
  const found = readdirSync(FOLDER).filter((name) => pattern.test(name));
  if (found.length !== 1) throw new Error(`${FOLDER} holds ${found.length} files like ${pattern}: bash deploy/build.sh makes them`);
  return join(FOLDER, found[0]);
}
