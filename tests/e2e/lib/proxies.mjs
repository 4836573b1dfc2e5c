// Real reverse proxies in front of haft: nginx and HAProxy from Debian's packages, in the foreground, with a configuration
// and all that they write in the folder of the test.

import { existsSync, writeFileSync } from 'node:fs';
import net from 'node:net';
import { delimiter, join } from 'node:path';

import { freePorts } from './ports.mjs';
import { until, within } from './wait.mjs';

const STREAM = '/usr/lib/nginx/modules/ngx_stream_module.so';
/** How often other ports are tried where another process was quicker to take one. */
const TRIES = 5;

/**
 * nginx with some sites. A site of `http` is the text of its `location /`, one of `stream` of its `server`. Yields the
 * addresses of all, under their names.
 */
export function nginx(place, { http = {}, stream = {}, upstreams = '' }) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${place.folder}/${kind};`);
  const configuration = (addresses) => `
    daemon off;
    master_process off;
    pid ${place.folder}/nginx.pid;
    error_log stderr warn;
    ${existsSync(STREAM) ? `load_module ${STREAM};` : ''}
    events { worker_connections 4096; }
    http {
      access_log off;
      ${temporary.join('\n')}
      map $http_upgrade $connection_upgrade { default upgrade; '' close; }
      map $http_upgrade $connection_kept { default upgrade; '' ''; }
      map $remote_addr $forwarded_for { ~^[0-9.]+$ "for=$remote_addr"; default "for=\\"[$remote_addr]\\""; }
      ${upstreams}
      ${sites(http, ([name, text]) => `server { listen ${addresses[name]}; location / {
        proxy_http_version 1.1;
        proxy_set_header Host $http_host;
        proxy_set_header Upgrade $http_upgrade;
        ${text}
      } }`)}
    }
    stream { ${sites(stream, ([name, text]) => `server { listen ${addresses[name]}; ${text} }`)} }
  `;
  const start = (file) => place.child(executable('nginx'), '-e', 'stderr', '-p', place.folder, '-c', file);
  return proxy(place, 'nginx.conf', Object.keys({ ...http, ...stream }), configuration, start);
}

/** A configuration of nginx that includes a file, in `http` or beside it, and writes to the test's folder only. */
export function nginxAround(place, path, inside) {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((kind) => `${kind}_temp_path ${place.folder}/${kind};`);
  const file = join(place.folder, 'around.conf');
  writeFileSync(
    file,
    `daemon off; master_process off; pid ${place.folder}/nginx.pid; error_log stderr warn;
    ${existsSync(STREAM) ? `load_module ${STREAM};` : ''}
    events { worker_connections 4096; }
    ${inside === 'http' ? `http { access_log off; ${temporary.join(' ')} include ${path}; }` : `include ${path};`}`,
  );
  return file;
}

/** HAProxy with some sites: the text of each one's `listen`. Yields the addresses of all, under their names. */
export function haproxy(place, listens) {
  const configuration = (addresses) => `
global
  maxconn 2000
defaults
  timeout connect 20s
  timeout client 60s
  timeout server 60s
  timeout tunnel 60s
${sites(listens, ([name, text]) => `listen ${name}\n  bind ${addresses[name]}\n${text}\n`)}
`;
  return proxy(place, 'haproxy.cfg', Object.keys(listens), configuration, (file) => {
    return place.child(executable('haproxy'), '-db', '-f', file);
  });
}

function sites(texts, write) {
  return Object.entries(texts).map(write).join('\n');
}

function proxy(place, file, names, configuration, start) {
  return onFreePorts(place, names, (addresses) => {
    writeFileSync(join(place.folder, file), configuration(addresses));
    return start(file);
  });
}

/**
 * Starts a proxy: `start` yields the child that is to listen on the addresses it is given, by name. No proxy takes port 0:
 * free ports are looked for, and others if another process was quicker. Yields the addresses.
 */
export async function onFreePorts(place, names, start) {
  for (let attempt = 1; ; attempt++) {
    const addresses = await freeAddresses(names);
    const child = start(addresses);
    try {
      await until(`${child.name} to listen`, async () => {
        child.mustRun();
        for (const address of Object.values(addresses)) await reachable(address);
        return true;
      });
      return addresses;
    } catch (error) {
      const taken = child.how && /already in use/i.test(child.tail());
      if (!taken || attempt === TRIES) throw error;
    }
  }
}

/** An address for each name. A name that ends in 6 is one of IPv6. */
async function freeAddresses(names) {
  const first = await freePorts(names.length);
  return Object.fromEntries(names.map((name, index) => [name, `${name.endsWith('6') ? '[::1]' : '127.0.0.1'}:${first + index}`]));
}

async function reachable(address) {
  const [, host, port] = address.match(/^\[?(.*?)\]?:(\d+)$/);
  const socket = net.connect({ host, port: Number(port) });
  try {
    await within(60_000, address, new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject)));
  } finally {
    socket.destroy();
  }
}

/** On the PATH, or where Debian puts what is for administrators. */
export function executable(name) {
  const folders = [...(process.env.PATH ?? '').split(delimiter), '/usr/sbin'];
  const found = folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
  if (!found) throw new Error(`${name} is missing: apt-get install ${name === 'nginx' ? 'nginx libnginx-mod-stream' : name}`);
  return found;
}
