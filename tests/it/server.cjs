// A Node program that knows nothing of haft: answers each request with its process id.
const { createServer } = require("node:http");

createServer((_, response) => response.end(String(process.pid))).listen(3000);
