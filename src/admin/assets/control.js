// Changing something: each change is asked first, and needs the token where haft wants one.
import { write } from '/draw.js';

const $ = (id) => document.getElementById(id);

/** Kept here and nowhere else: it is gone with the page. */
let token = '';

const headers = () => ({ Accept: 'application/json', ...(token && { Authorization: `Bearer ${token}` }) });

/** Shows a dialog and waits for its end; yields whether it was answered with yes. */
function answered(dialog) {
  return new Promise((resolve) => {
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true });
    dialog.returnValue = '';
    dialog.showModal();
  });
}

/** Has the token typed in. */
export async function unlock() {
  $('token-input').value = '';
  const given = await answered($('token'));
  const typed = $('token-input').value.trim();
  $('token-input').value = '';
  if (given) token = typed;
  return given && typed !== '';
}

$('token-no').addEventListener('click', () => $('token').close('no'));

/** One request; where haft wants a token it is asked for, once. Yields `{ ok, status, body }`. */
async function request(method, path) {
  for (let tries = 0; ; tries++) {
    const response = await fetch(path, { method, headers: headers(), cache: 'no-store' });
    if (response.status === 401) $('unlock').hidden = false;
    if (response.status !== 401 || tries > 0 || method !== 'POST' || !(await unlock())) {
      const body = await response.json().catch(() => ({ error: `haft answered ${response.status}` }));
      return { ok: response.ok, status: response.status, body };
    }
  }
}

/** Asks the operator, and then haft. Returns haft's answer: `[kind, text]`; nothing if the operator declines. */
export async function change(path, question, more) {
  write($('ask-text'), question);
  write($('ask-more'), more);
  if (!(await answered($('ask')))) return null;
  try {
    const { ok, body } = await request('POST', path);
    return ok ? ['good', body.message] : ['bad', body.error];
  } catch {
    return ['bad', 'haft does not answer'];
  }
}

/** The last lines of a slot's workers, or why they are not shown. */
export async function lines(slot) {
  try {
    const { ok, status, body } = await request('GET', `/logs?slot=${slot}`);
    if (ok) return body.map(({ text }) => text).slice(-200).join('\n') || 'They have written nothing.';
    return status === 401 ? 'They are shown once the token is given.' : body.error;
  } catch {
    return 'haft does not answer';
  }
}
