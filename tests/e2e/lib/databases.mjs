// A Redis and a PostgreSQL for one test, on free ports of the loopback; they end with it.

import { spawnSync } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { freePort, freePorts } from './ports.mjs';
import { until } from './wait.mjs';

/** PostgreSQL runs as no superuser. */
const NOBODY = 65534;

/** What starts a Redis that keeps nothing and lets in whatever reaches it. */
export function redisCommand(address, port) {
  return ['redis-server', '--port', `${port}`, '--bind', address, '--protected-mode', 'no', '--save', '', '--appendonly', 'no'];
}

/** A running redis-server: its URL, and its child process. `port`: where one was before. */
export async function redis(place, port, ...more) {
  const at = port ?? await freePort();
  const child = place.child(...redisCommand('127.0.0.1', at), ...more);
  await child.heard(/Ready to accept connections/);
  return { url: `redis://127.0.0.1:${at}`, port: at, child };
}

/** The same with TLS and a password alone: its URL, and the file of the authority that has signed for it. */
export async function redisWithTls(place) {
  const at = await freePort();
  const path = (name) => join(place.folder, name);
  const ec = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl('req', '-x509', ...ec, '-keyout', path('ca.key'), '-out', path('ca.pem'), '-days', '2', '-subj', '/CN=haft tests');
  openssl('req', '-new', ...ec, '-keyout', path('redis.key'), '-out', path('redis.csr'), '-subj', '/CN=localhost');
  writeFileSync(path('names'), 'subjectAltName=DNS:localhost,IP:127.0.0.1\n');
  const signed = ['-CA', path('ca.pem'), '-CAkey', path('ca.key'), '-CAcreateserial', '-extfile', path('names')];
  openssl('x509', '-req', '-in', path('redis.csr'), ...signed, '-days', '2', '-out', path('redis.pem'));
  const tls = ['--tls-port', `${at}`, '--port', '0', '--tls-auth-clients', 'no', '--tls-ca-cert-file', path('ca.pem')];
  const own = ['--tls-cert-file', path('redis.pem'), '--tls-key-file', path('redis.key'), '--requirepass', 'a-secret'];
  const child = place.child('redis-server', '--bind', '127.0.0.1', '--save', '', '--appendonly', 'no', ...tls, ...own);
  await child.heard(/Ready to accept connections/);
  return { url: `rediss://:a-secret@127.0.0.1:${at}`, authority: path('ca.pem'), child };
}

/** What the servers below have for a password, and what their sentinels have. */
const [PASSWORD, OF_SENTINELS] = ['a-secret', 'another-secret'];

/** A primary, its replica and three sentinels that watch them, all with passwords: the URL, the primary, both ports. */
export async function redisWithSentinels(place) {
  const first = await freePorts(5);
  const [at, replicaAt, ...sentinels] = Array.from({ length: 5 }, (_, index) => first + index);
  const secured = ['--requirepass', PASSWORD, '--masterauth', PASSWORD, '--dir', place.folder];
  const [primary, replica] = [at, replicaAt].map((port) => place.child(...redisCommand('127.0.0.1', port), ...secured, ...(port === at ? [] : ['--replicaof', '127.0.0.1', `${at}`])));
  await replica.heard(/MASTER <-> REPLICA sync: Finished with success/);
  for (const port of sentinels) {
    const file = join(place.folder, `sentinel-${port}.conf`);
    writeFileSync(file, [
      `port ${port}`,
      'bind 127.0.0.1',
      `requirepass ${OF_SENTINELS}`,
      `sentinel sentinel-pass ${OF_SENTINELS}`,
      `sentinel monitor chat 127.0.0.1 ${at} 2`,
      `sentinel auth-pass chat ${PASSWORD}`,
      'sentinel down-after-milliseconds chat 1000',
      'sentinel failover-timeout chat 10000',
      '',
    ].join('\n'));
    place.child('redis-server', file, '--sentinel');
  }
  for (const port of sentinels) {
    await until(`the sentinel at ${port} to know the others`, () => {
      const text = redisCli('-p', `${port}`, '-a', OF_SENTINELS, '--no-auth-warning', 'sentinel', 'master', 'chat');
      return /num-slaves\n1\n/.test(text) && /num-other-sentinels\n2\n/.test(text) ? true : Promise.reject(new Error(text));
    });
  }
  const hosts = sentinels.map((port) => `127.0.0.1:${port}`).join(',');
  return { url: `redis+sentinel://:${PASSWORD}@${hosts}/chat?sentinel_password=${OF_SENTINELS}`, primary, at, replicaAt };
}

/** Three nodes of a cluster without replicas, each with its address and child process. */
export async function redisCluster(place) {
  const first = await freePorts(6);
  const nodes = [0, 1, 2].map((index) => {
    const port = first + index;
    const own = ['--cluster-enabled', 'yes', '--cluster-config-file', `nodes-${port}.conf`, '--cluster-port', `${port + 3}`, '--dir', place.folder];
    return { address: `127.0.0.1:${port}`, child: place.child(...redisCommand('127.0.0.1', port), ...own) };
  });
  for (const { child } of nodes) await child.heard(/Ready to accept connections/);
  redisCli('--cluster', 'create', ...nodes.map(({ address }) => address), '--cluster-replicas', '0', '--cluster-yes');
  for (const { address } of nodes) {
    await until(`the node at ${address} to know the others`, () => {
      const text = redisCli('-p', address.split(':')[1], 'cluster', 'info');
      return /cluster_state:ok/.test(text) && /cluster_known_nodes:3/.test(text);
    });
  }
  return nodes;
}

function redisCli(...args) {
  const { status, stdout, stderr, error } = spawnSync('redis-cli', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`redis-cli ${args.join(' ')}: ${error ?? `${stderr}${stdout}`}`);
  return stdout;
}

function openssl(...args) {
  const { status, stderr, error } = spawnSync('openssl', args, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`openssl ${args[0]}: ${error ?? stderr}`);
}

/** A running PostgreSQL with an empty database: its URL. */
export async function postgres(place) {
  const folder = mkdtempSync(join(tmpdir(), 'haft-postgres-'));
  let child;
  place.atEnd(async () => {
    // It waits for no client.
    if (child && !child.how) await child.end('SIGINT');
    rmSync(folder, { recursive: true, force: true });
  });
  let as = [];
  if (process.getuid() === 0) {
    chownSync(folder, NOBODY, NOBODY);
    as = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups'];
  }
  const [data, port] = [join(folder, 'data'), await freePort()];
  const [command, ...args] = [...as, program('initdb'), '-D', data, '-U', 'haft', '--auth=trust', '--no-sync'];
  const made = spawnSync(command, args, { cwd: folder, encoding: 'utf8' });
  if (made.status !== 0) throw new Error(`initdb: ${made.error ?? made.stderr}`);
  const flags = ['-D', data, '-p', `${port}`, '-h', '127.0.0.1', '-k', folder, '-c', 'fsync=off'];
  child = place.child(...as, program('postgres'), ...flags);
  await child.heard(/database system is ready to accept connections/);
  return { url: `postgres://haft@127.0.0.1:${port}/postgres`, child };
}

/** Debian keeps PostgreSQL's programs in a folder for each version. */
function program(name) {
  const versions = '/usr/lib/postgresql';
  const found = existsSync(versions) ? readdirSync(versions).map((version) => join(versions, version, 'bin', name)) : [];
  return found.find((path) => existsSync(path)) ?? name;
}
