// An adapter that a program has made of @socket.io/cluster-adapter: it is the program's own.

const { NodeClusterAdapter } = require('@socket.io/cluster-adapter');

class CountingAdapter extends NodeClusterAdapter {
  broadcast(...args) {
    this.broadcasts = (this.broadcasts ?? 0) + 1;
    super.broadcast(...args);
  }
}

exports.createAdapter = (options) => function createCounting(nsp) {
  return new CountingAdapter(nsp, options);
};
