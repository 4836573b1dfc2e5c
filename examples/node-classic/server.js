// The classic clustered script: the primary accepts, hashes the client's address and passes the connection on; the
// workers serve it. Both in one file.

const cluster = require("node:cluster");
const net = require("node:net");
const os = require("node:os");
const express = require("express");
const { Server } = require("socket.io");

const PORT = process.env.PORT ?? 3000;
const WORKERS = Number(process.env.WORKERS ?? os.availableParallelism());

if (cluster.isPrimary) {
  const workers = [];
  const spawn = (index) => {
    workers[index] = cluster.fork();
    workers[index].on("exit", () => spawn(index));
  };
  for (let index = 0; index < WORKERS; index++) spawn(index);

  const hash = (text) => [...text].reduce((sum, letter) => (Math.imul(sum, 31) + letter.charCodeAt(0)) >>> 0, 7);
  const server = net.createServer({ pauseOnConnect: true }, (connection) => {
    const index = hash(connection.remoteAddress ?? "") % WORKERS;
    workers[index].send("sticky-session:connection", connection);
  });
  server.listen(PORT, () => console.log(`the primary listens on port ${server.address().port}`));
} else {
  const app = express();
  // Not for clients: theirs come from the primary.
  const server = app.listen(0, "localhost");
  const io = new Server(server);

  app.get("/", (request, response) => {
    response.send(`worker ${process.pid} serves ${request.ip}\n`);
  });

  io.on("connection", (socket) => {
    socket.emit("hello", { pid: process.pid });
    socket.on("message", (text, done) => {
      io.emit("message", text);
      done?.({ heard: io.engine.clientsCount });
    });
  });

  process.on("message", (message, connection) => {
    if (message !== "sticky-session:connection" || !connection) return;
    server.emit("connection", connection);
    connection.resume();
  });
}
