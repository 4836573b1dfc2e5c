// A Node program that listens on the port it is given; with a second word, on any other if it cannot.
const { createServer } = require("node:http");

const [port, otherwise] = process.argv.slice(2);
const server = createServer((_, response) => response.end("served"));
if (otherwise) server.once("error", () => server.listen(0, "127.0.0.1"));
server.listen(Number(port), "127.0.0.1");
