// --- The inspector's port -------------------------------------------------------------------------------------------
//
// haft gives each worker an inspector's port of its own where the command names one. Below a shell or a package manager
// haft does not see the command, so it is done here. After a reload the old worker may still have the port: then the
// inspector begins when that has ended.

/** Milliseconds between two attempts to have a port, and how many there are: another worker may be about to leave it. */
const PORT_AGAIN = 200;
const PORT_ATTEMPTS = 200;

/** The host and port of the inspector on the command line; nothing if it names none. */
function namedInspector() {
  const [last] = process.execArgv.map((word) => /^--(inspect(?:-brk|-wait|-port)?|debug-port)=(.+)$/.exec(word)).filter(Boolean).slice(-1);
  const [, host, port] = /^(?:(.*):)?(\d+)$/.exec(last ? last[2] : '') || [];
  const stops = process.execArgv.some((word) => /^--inspect-(brk|wait)\b/.test(word));
  return Number(port) > 0 ? { host: host || '127.0.0.1', port: Number(port), stops } : undefined;
}

/** Moves the inspector to this worker's port: so many after the named one. */
function moveInspector(slot) {
  const named = namedInspector();
  if (!named || !process.execArgv.some((word) => /^--inspect(-brk|-wait)?(=|$)/.test(word))) return;
  const inspector = require('inspector');
  const url = inspector.url();
  // With a debugger at it that the program waited for, it stays where it is.
  if (url && (slot === 0 || named.stops)) return;
  if (url) inspector.close();
  openInspector(inspector, named, named.port + slot, PORT_ATTEMPTS);
}

function openInspector(inspector, { host, stops }, port, attempts) {
  if (isFree(host, port)) inspector.open(port, host, stops);
  else if (attempts > 0) later(() => attempt(() => openInspector(inspector, { host, stops }, port, attempts - 1)), PORT_AGAIN);
}

/** Whether something could listen there. Node would write to standard error if it could not. */
function isFree(host, port) {
  const { TCP, constants } = process.binding('tcp_wrap');
  const socket = new TCP(constants.SERVER);
  const bind = host.includes(':') ? socket.bind6(host, port, 0) : socket.bind(host, port);
  const error = bind || socket.listen(1);
  socket.close();
  return !error;
}
