// --- The paths of Engine.IO -----------------------------------------------------------------------------------------
//
// haft looks for tags in requests below /socket.io/ and below the paths that are reported here: a program may have
// several Socket.IO servers, each at a path of its own.

/** Engines that take their requests from an HTTP server. */
const attached = new WeakSet();
/** The paths that haft knows. The first needs no report. */
const paths = new Set(['/socket.io/']);
/** The most that are reported: haft keeps no more. */
const MAX_PATHS = 16;

function tellPath(given) {
  const path = `${String(given).replace(/\/+$/, '')}/`;
  if (!tagging || paths.has(path) || paths.size > MAX_PATHS) return;
  paths.add(path);
  say({ act: 'path', type: path });
}

function watchPaths(prototype) {
  // Socket.IO gives it its own path.
  wrap(prototype, 'attach', (engine, [, options]) => {
    attached.add(engine);
    tellPath((options || {}).path || '/engine.io');
  });
}

/** A request that an engine is given. */
function seePath(engine, { originalUrl, url }) {
  // The program gives it its requests by itself, from wherever they come.
  if (!attached.has(engine)) tellPath(String(originalUrl || url).split('?')[0]);
}
