// Node's own cluster, round robin: `node node-primary.mjs COUNT FILE ARGS...` runs COUNT workers of an unmodified
// program. What haft does with the same program is compared with this. Prints `listening on ADDR` when all workers
// listen.

import cluster from 'node:cluster';

const [count, exec, ...args] = process.argv.slice(2);

cluster.schedulingPolicy = cluster.SCHED_RR;
cluster.setupPrimary({ exec, args, serialization: process.env.SERIALIZATION ?? 'json' });
if (process.env.RELAY) (await import(process.env.RELAY)).default.setupPrimary();

let waiting = Number(count);
for (let slot = 0; slot < Number(count); slot++) cluster.fork({ HAFT_SLOT: slot });
cluster.on('listening', (_worker, { address, port }) => {
  if (--waiting === 0) console.log(`listening on ${address ?? '127.0.0.1'}:${port}`);
});
