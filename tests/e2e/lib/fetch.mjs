// A plain HTTP request from a home, over a TCP connection of its own.

import http from 'node:http';

import { within } from './wait.mjs';

/** The body of the answer to a GET, which must be a 200. */
export function fetchText(url, home) {
  const answer = new Promise((resolve, reject) => {
    const request = http.get(url, { agent: home.agent }, (response) => {
      const body = response.setEncoding('utf8').toArray();
      body.then((parts) => settle(response.statusCode, parts.join('')), reject);
    });
    request.on('error', reject);
    const settle = (status, body) => (status === 200 ? resolve(body) : reject(new Error(`${url}: ${status} ${body}`)));
  });
  return within(60_000, `an answer to ${home.address}`, answer);
}
