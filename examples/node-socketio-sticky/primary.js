// Only for Node alone: haft takes its place.

const cluster = require("node:cluster");
const { createServer } = require("node:http");
const os = require("node:os");
const path = require("node:path");
const { setupPrimary: setupAdapter } = require("@socket.io/cluster-adapter");
const { setupPrimary: setupSticky } = require("@socket.io/sticky");

const server = createServer();
setupSticky(server, { loadBalancingMethod: "least-connection" });
setupAdapter();

// Both packages send Buffers between processes.
cluster.setupPrimary({ exec: path.join(__dirname, "worker.js"), serialization: "advanced" });
for (let count = Number(process.env.WORKERS ?? os.availableParallelism()); count > 0; count--) cluster.fork();
cluster.on("exit", () => cluster.fork());

server.listen(process.env.PORT ?? 3000, () => {
  console.log(`the primary listens on port ${server.address().port}`);
});
