// --- Signals --------------------------------------------------------------------------------------------------------

/** Signals that ask for an end. Of these haft wants to know whether the program handles them. */
const ENDING = ['SIGTERM', 'SIGINT'];

/** Reports to haft which of them the program handles, at each change. haft assumes none. */
function watchSignals() {
  let handled = '';
  const look = () => {
    const signals = ENDING.filter((name) => process.listenerCount(name) > 0);
    if (`${signals}` === handled) return;
    handled = `${signals}`;
    say({ act: 'handles', signals });
  };
  // Reported before a listener is added, and after it is removed.
  const heard = (name) => ENDING.includes(name) && setImmediate(() => attempt(look)).unref();
  process.on('newListener', heard);
  process.on('removeListener', heard);
  // Below a wrapper the program has come far by now.
  look();
}
