// An ordinary server that knows nothing of clusters: `node node-server.mjs PLACE...`, where a PLACE is http:PORT,
// http:HOST:PORT, https:HOST:PORT, unix:PATH or udp:HOST:PORT. Each is a server of its own. With @SLOT behind it only
// the worker of that slot has it; with +MS behind it the program waits so long before it. Prints `server N at ADDR` for
// each that listens, and `server N failed CODE` for each that does not. A request for /haft/close closes its server,
// /haft/reopen closes it and makes it listen again; /haft/retire closes it and exits when its connections have ended,
// and is answered in part, so that its own has not.

import dgram from 'node:dgram';
import { readFile } from 'node:fs/promises';
import http from 'node:http';
import https from 'node:https';
import { setTimeout as pause } from 'node:timers/promises';

import { app, page } from './node-app.cjs';

// A real program reads its configuration first, and so is not at once ready.
const credentials = process.env.TLS && JSON.parse(await readFile(process.env.TLS, 'utf8'));

for (const [index, argument] of process.argv.slice(2).entries()) {
  const [, place, slot, , wait] = argument.match(/^(.*?)(?:@(\d+))?(\+(\d+))?$/);
  if (slot !== undefined && slot !== process.env.HAFT_SLOT) continue;
  if (wait) await pause(Number(wait));
  const [kind, ...rest] = place.split(':');
  const port = kind === 'unix' ? rest.join(':') : Number(rest.pop());
  const host = kind === 'unix' || rest.length === 0 ? undefined : rest.join(':');
  const server = start(kind, `server ${index}`);
  server.on('error', (error) => console.log(`server ${index} failed ${error.code}`));
  server.on('listening', () => {
    const address = server.address();
    console.log(`server ${index} at ${typeof address === 'string' ? address : `${address.address}:${address.port}`}`);
  });
  const listen = () => server.listen(...[port, host].filter((part) => part !== undefined));
  server.on('request', ({ url }, response) => {
    if (url === '/haft/reopen') response.end(() => server.close(listen));
    if (url === '/haft/close') response.end(() => server.close());
    if (url === '/haft/retire') response.write('retiring', () => server.close(() => process.exit()));
  });
  if (kind === 'udp') server.bind(port, host);
  else listen();
}

function start(kind, name) {
  if (kind === 'udp') return dgram.createSocket('udp4');
  const server = kind === 'https' ? https.createServer(credentials, page(name)) : http.createServer(page(name));
  app(server);
  return server;
}
