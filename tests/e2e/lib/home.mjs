// Where clients come from: a loopback address of their own, and one TCP connection per request.

import http from 'node:http';

/**
 * A source address. Its agent keeps no connection alive, so that every polling request and every WebSocket is a TCP
 * connection of its own, and it counts them: what a balancer accepted must add up to what the homes have opened.
 */
export class Home {
  constructor(address) {
    this.address = address;
    this.opened = 0;
    this.connections = new Set();
    this.agent = new CountingAgent(this);
  }

  /** Closes all its connections, those into a network that is gone as well, and lets it open no other. */
  end() {
    this.isAway = true;
    this.connections.forEach((socket) => socket.destroy());
  }
}

/** A home that moves: from where and to which host it connects changes in mid-session. */
export class MovingHome extends Home {
  /** Its next connections go to this host (an address of this machine) from there. */
  moveTo(host, address = host) {
    this.address = address;
    this.agent.moved = { host, hostname: host, localAddress: address };
  }
}

/** `count` homes in 127.0.0.0/8, spread over its third and fourth byte; never 127.0.0.1 itself. */
export function homes(count) {
  return Array.from({ length: count }, (_, i) => new Home(`127.0.${1 + (i % 7)}.${2 + i}`));
}

/** How many TCP connections these homes have established. */
export function opened(list) {
  return list.reduce((sum, home) => sum + home.opened, 0);
}

class CountingAgent extends http.Agent {
  constructor(home) {
    super({ keepAlive: false, localAddress: home.address });
    this.home = home;
    this.held = undefined;
    /** What is other than it is asked for, of every connection. */
    this.moved = {};
  }

  /** From now on connections are only wished for, as where a network is away. */
  hold() {
    this.held = [];
  }

  /** Whether connections are wished for, and those from before have ended. */
  idle() {
    return this.held.length > 0 && Object.values(this.sockets).flat().length === 0;
  }

  /** Opens all that were wished for. */
  release() {
    const held = this.held;
    this.held = undefined;
    for (const [options, done] of held) done(null, this.createConnection(options));
  }

  createConnection(given, done) {
    const options = { ...given, ...this.moved };
    if (this.held) {
      this.held.push([options, done]);
      return undefined;
    }
    const socket = super.createConnection(options, done);
    // Only an established connection can have been accepted; a refused one never reached a process.
    socket.once('connect', () => this.home.opened++);
    this.home.connections.add(socket);
    socket.once('close', () => this.home.connections.delete(socket));
    if (this.home.isAway) socket.destroy();
    return socket;
  }
}
