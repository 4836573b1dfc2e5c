// haft with programs of Node as its workers.

import { copyFileSync, cpSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { Haft } from './haft.mjs';
import { until } from './wait.mjs';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));

/** A program of this folder, as a path. */
export const program = (name) => here(name);

/** haft without `-l`: it opens what the program asks for. */
export class OwnListeners extends Haft {
  constructor(place, flags) {
    const child = (binary, ...args) => {
      const at = args.indexOf('-l');
      return place.child(binary, ...args.toSpliced(at, 2));
    };
    super({ folder: place.folder, child }, flags);
  }

  /** Waits until all workers are ready, and gives what each server of the program has said of its address. */
  async ready(servers = 1) {
    await until('a 200 from /readyz', async () => (await this.get('/readyz')).status === 200);
    const { slots } = await this.status();
    const addresses = [];
    for (let index = 0; index < servers; index++) {
      const said = await this.child.heard(new RegExp(`server ${index} at (\\S+)$`), slots.length);
      const unique = [...new Set(said.map(([, address]) => address))];
      if (unique.length > 1) throw new Error(`server ${index} has one address in every worker, not ${unique}`);
      addresses.push(unique[0]);
    }
    return addresses;
  }
}

/** Puts an example into the test's folder, where it finds the packages of these tests. */
export function example(place, name) {
  cpSync(here(`../../../examples/${name}`), place.folder, { recursive: true, filter: (path) => !path.includes('node_modules') });
  packages(place);
}

/** Lets programs in the test's folder find the packages of these tests. */
export function packages(place) {
  symlinkSync(here('../node_modules'), join(place.folder, 'node_modules'));
}

/** Puts a program of this folder into the test's folder, with what it imports. */
export function copy(place, ...names) {
  for (const name of names) copyFileSync(here(name), join(place.folder, name));
  packages(place);
}
