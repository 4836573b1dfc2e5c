// A Node program that serves, and wants to listen on what it cannot have, again and again.
const { createServer } = require("node:http");

let left = Number(process.argv[2]);
const other = createServer();
// An address of no host (RFC 5737).
const next = () => left-- > 0 && other.listen(1, "192.0.2.1");
other.on("error", next);
createServer((_, response) => response.end("served")).listen(3000, next);
