// --- Tags -----------------------------------------------------------------------------------------------------------

/** Writes and reads this worker's tags. `digits`: the keys, 64 hexadecimal digits each, of which the first one signs. */
function tagger(digits) {
  const { createHmac } = require('crypto');
  const keys = digits.split(',').map((each) => Buffer.from(each, 'hex'));
  const [slot, generation] = [env.HAFT_SLOT, env.HAFT_GENERATION].map(Number);
  if (keys.some((key) => key.length !== 32) || ![slot, generation].every(Number.isInteger)) throw new Error('no key, slot or generation');
  const host = /^[A-Za-z0-9]{2}$/.test(env.HAFT_HOST_ID) ? env.HAFT_HOST_ID : NAMELESS;
  const own = Buffer.alloc(6);
  own.writeUInt16BE(slot, 0);
  own.writeUInt32BE(generation, 2);

  function tag(base, at, numbers, key) {
    const head = VERSION + at;
    const checksum = createHmac('sha256', key).update(base + head).update(numbers).digest().slice(0, 6);
    return head + Buffer.concat([numbers, checksum]).toString('base64').replace(/\+/g, '-').replace(/\//g, '_');
  }

  /** The id without its tag, and whether the tag is this host's and this worker's; nothing if there is no valid tag. */
  function read(sid) {
    const end = sid.length - TAG;
    if (end < 0 || !sid.startsWith(VERSION, end)) return undefined;
    const base = sid.slice(0, end);
    const at = sid.slice(end + VERSION.length, end + HEAD);
    const numbers = Buffer.from(sid.slice(end + HEAD), 'base64').slice(0, 6);
    if (!keys.some((key) => tag(base, at, numbers, key) === sid.slice(end))) return undefined;
    const isHere = at === host || at === NAMELESS || host === NAMELESS;
    return { base, numbers, isHere, isOwn: isHere && numbers.equals(own) };
  }

  return {
    /** An id with this worker's tag, and no other. What is no id is left alone. */
    append(id) {
      if (typeof id !== 'string' && typeof id !== 'number') return id;
      const tagged = read(String(id));
      const base = tagged ? tagged.base : String(id);
      return base + tag(base, host, own, keys[0]);
    },
    /** The worker of this host whose tag an id has; nothing if there is no valid tag, or another host's. */
    find(id) {
      const { numbers, isHere, isOwn } = read(id) || {};
      return isHere && { slot: numbers.readUInt16BE(0), generation: numbers.readUInt32BE(2), isOwn };
    },
    own: { slot, generation },
    /** Whether the id is of a session of another worker's, or another host's. */
    isForeign(sid) {
      const tagged = read(sid);
      return tagged !== undefined && !tagged.isOwn;
    },
  };
}
