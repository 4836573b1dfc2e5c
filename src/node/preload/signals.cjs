// --- Signals --------------------------------------------------------------------------------------------------------

/** Signals that ask for an end. Of these haft wants to know whether the program handles them. */
const ENDING = ['SIGTERM', 'SIGINT'];

/** Tells haft which of them the program handles, each time that this changes. None is what it takes for granted. */
function watchSignals() {
  let handled = '';
  const look = () => {
    const signals = ENDING.filter((name) => process.listenerCount(name) > 0);
    if (`${signals}` === handled) return;
    handled = `${signals}`;
    say({ act: 'handles', signals });
  };
  // It is told before a listener is there, and after it is gone.
  const heard = (name) => ENDING.includes(name) && setImmediate(() => attempt(look)).unref();
  process.on('newListener', heard);
  process.on('removeListener', heard);
}
