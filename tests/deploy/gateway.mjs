// Checks an HTTPRoute (JSON on standard input) against the schema of the Gateway API, its experimental fields included:
//
//     node tests/deploy/gateway.mjs FOLDER < ROUTE          FOLDER has @kubernetes-models/gateway-api below node_modules
//
// The schema allows fields that it does not know, and a gateway drops them: what it never looks at is an error here.

import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const schema = `${process.argv[2]}/node_modules/@kubernetes-models/gateway-api/_schemas/IoK8sSigsGatewayApiApisV1HTTPRoute.js`;
const { validate } = await import(pathToFileURL(resolve(schema)));
const unread = new Set();

function watched(value, path) {
  if (value === null || typeof value !== 'object') return value;
  const inner = Object.entries(value).map(([key, each]) => [key, watched(each, `${path}/${key}`)]);
  const copy = Array.isArray(value) ? inner.map(([, each]) => each) : Object.fromEntries(inner);
  Object.keys(value).forEach((key) => unread.add(`${path}/${key}`));
  const read = (key) => unread.delete(`${path}/${String(key)}`);
  return new Proxy(copy, {
    get: (target, key) => (read(key), target[key]),
  });
}

const route = watched(JSON.parse(readFileSync(0, 'utf8')), '');
const errors = validate(route) ? [] : validate.errors.map(({ instancePath, message, keyword, params }) => `${instancePath}: ${message ?? keyword} ${JSON.stringify(params)}`);
errors.push(...[...unread].map((path) => `${path}: the schema has no such field`));
for (const error of errors) console.error(error);
process.exitCode = errors.length ? 1 : 0;
