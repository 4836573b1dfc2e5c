// Tags, told from what they are to be and not from the code that writes them: WebCrypto's HMAC, and a DataView.

import { webcrypto } from 'node:crypto';

/** Version 1 of the layout, and a host without a name. */
const HEAD = '100';

/** A session id with a tag: base, slot and generation, made with the key of 64 hexadecimal digits. */
export async function tagged(base, slot, generation, key) {
  const numbers = new DataView(new ArrayBuffer(6));
  numbers.setUint16(0, slot);
  numbers.setUint32(2, generation);
  const bytes = Uint8Array.from(key.match(/../g), (digits) => parseInt(digits, 16));
  const secret = await webcrypto.subtle.importKey('raw', bytes, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  const signed = [...new TextEncoder().encode(`${base}${HEAD}`), ...new Uint8Array(numbers.buffer)];
  const checksum = new Uint8Array(await webcrypto.subtle.sign('HMAC', secret, Uint8Array.from(signed))).slice(0, 6);
  const tag = btoa(String.fromCharCode(...new Uint8Array(numbers.buffer), ...checksum));
  return `${base}${HEAD}${tag.replaceAll('+', '-').replaceAll('/', '_')}`;
}

/** What a session id says of its worker, true or not: `{ base, slot, generation }`; nothing if it has no tag. */
export function tagOf(sid) {
  const [, base, tag] = sid.match(/^(.{16,})100([\w-]{16})$/) ?? [];
  if (tag === undefined) return undefined;
  const bytes = Uint8Array.from(atob(tag.replaceAll('-', '+').replaceAll('_', '/')), (letter) => letter.charCodeAt(0));
  const numbers = new DataView(bytes.buffer);
  return { base, slot: numbers.getUint16(0), generation: numbers.getUint32(2) };
}
