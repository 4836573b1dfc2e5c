// The programs that tests run, and where a test's own folder gets them from.

import { copyFileSync, cpSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** A program of this folder, as a path. */
export const file = (name) => fileURLToPath(new URL(name, import.meta.url));

/** Puts an example into the test's folder, where it finds the packages of these tests. */
export function example(place, name) {
  cpSync(file(`../../../examples/${name}`), place.folder, { recursive: true, filter: (path) => !path.includes('node_modules') });
  packages(place);
}

/** Lets programs in the test's folder find the packages of these tests. */
export function packages(place) {
  symlinkSync(file('../node_modules'), join(place.folder, 'node_modules'));
}

/** Puts programs of this folder into the test's folder. */
export function copy(place, ...names) {
  for (const name of names) copyFileSync(file(name), join(place.folder, name));
  packages(place);
}
