// What a process costs, as /proc tells it.

import { readFileSync } from 'node:fs';

/** The processor's time that a process has used, in ticks (of 10 ms, as everywhere on Linux that programs see). */
export function ticks(pid) {
  // What follows the name, which may have blanks and parentheses in it; proc_pid_stat(5) counts from 1 before it.
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ');
  const [utime, stime] = [fields[14 - 3], fields[15 - 3]].map(Number);
  return utime + stime;
}

/** The memory that a process has, in bytes. */
export function resident(pid) {
  const [, kilobytes] = readFileSync(`/proc/${pid}/status`, 'utf8').match(/^VmRSS:\s+(\d+) kB$/m);
  return Number(kilobytes) * 1024;
}
