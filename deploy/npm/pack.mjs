// Makes the npm packages: `haft`, which holds a small script, and one for each processor, which holds the program. A package
// manager installs only that of its own processor.
//
//     node deploy/npm/pack.mjs FOLDER VERSION CPU=PROGRAM...          CPU as Node calls it: x64, arm64

import { execFileSync } from 'node:child_process';
import { chmodSync, cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const [folder, version, ...programs] = process.argv.slice(2);
const byCpu = programs.map((text) => text.split('=', 2));

function pack(template, change, fill = () => {}) {
  const stage = mkdtempSync(join(tmpdir(), 'haft-npm-'));
  try {
    cpSync(join(here, template), stage, { recursive: true });
    cpSync(join(here, '../../LICENSE'), join(stage, 'LICENSE'));
    const manifest = join(stage, 'package.json');
    writeFileSync(manifest, `${JSON.stringify(change(JSON.parse(readFileSync(manifest, 'utf8'))), null, 2)}\n`);
    fill(stage);
    execFileSync('npm', ['pack', '--silent', '--ignore-scripts', '--pack-destination', folder], { cwd: stage, stdio: ['ignore', 'ignore', 'inherit'] });
  } finally {
    rmSync(stage, { recursive: true });
  }
}

for (const [cpu, program] of byCpu) {
  const fill = (stage) => {
    cpSync(program, join(stage, 'bin/haft'));
    chmodSync(join(stage, 'bin/haft'), 0o755);
  };
  pack('processor', (manifest) => ({ ...manifest, name: manifest.name.replace('CPU', cpu), version, cpu: [cpu] }), fill);
}
const optionalDependencies = Object.fromEntries(byCpu.map(([cpu]) => [`@haft/linux-${cpu}`, version]));
pack('haft', (manifest) => ({ ...manifest, version, optionalDependencies }));
