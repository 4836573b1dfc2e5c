// The hook of preload-register.mjs. Node then loads CommonJS its own way, past what CommonJS has in place for that.

import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

export async function load(url, context, next) {
  const loaded = await next(url, context);
  if (loaded.format !== 'commonjs') return loaded;
  return { ...loaded, source: loaded.source ?? (await readFile(fileURLToPath(url))) };
}
