// A Redis and a PostgreSQL for one test, on free ports of the loopback; they end with it.

import { spawnSync } from 'node:child_process';
import { chownSync, existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { freePort } from './ports.mjs';

/** PostgreSQL runs as no superuser. */
const NOBODY = 65534;

/** What starts a Redis that keeps nothing and lets in whatever reaches it. */
export function redisCommand(address, port) {
  return ['redis-server', '--port', `${port}`, '--bind', address, '--protected-mode', 'no', '--save', '', '--appendonly', 'no'];
}

/** A running redis-server: its URL, and its child process. `port`: where one was before. */
export async function redis(place, port) {
  const at = port ?? await freePort();
  const child = place.child(...redisCommand('127.0.0.1', at));
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
