// Ports for programs that need theirs beforehand. Such a port is let go before the program takes it. So it comes from
// below those that the kernel gives to a process that asks for any (ip(7), ip_local_port_range): no client and no
// server of another test comes by it meanwhile.

import { readFileSync } from 'node:fs';
import net from 'node:net';

import { until, within } from './wait.mjs';

const LOWEST = 10_000;
const [ABOVE] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s+/).map(Number);

/** So many ports of 127.0.0.1 in a row that nothing has at the moment: the first of them. */
export function freePorts(count) {
  return until(`${count} free ports in a row`, async () => {
    const first = LOWEST + Math.floor(Math.random() * (Math.max(ABOVE, LOWEST + 10_000) - LOWEST - count));
    const servers = [];
    try {
      while (servers.length < count) servers.push(await held(first + servers.length));
      return first;
    } finally {
      await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
    }
  });
}

/** A port that nothing has at the moment. */
export const freePort = () => freePorts(1);

function held(port) {
  const server = net.createServer().listen(port, '127.0.0.1');
  const listening = new Promise((resolve, reject) => server.once('listening', () => resolve(server)).once('error', reject));
  return within(60_000, `port ${port}`, listening);
}
