//! What workers write: passed on as it comes, held back while it may be the fifth copy of one failure.
//!
//! A worker's stderr (and its stdout with `--prefix-output`) comes through a pipe. The first worker that is started
//! speaks freely. Of the others, and of replacements, what they write before they are ready is held back: when they get
//! ready it is passed on, and when they die first it is shown only if it has not been shown already.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

/// Most that is held back of one worker. Past it the rest is passed on.
const MOST_HELD: usize = 64 * 1024;
/// Lines that are kept to be told when the worker is given up.
const TAIL_LINES: usize = 12;

/// Which of haft's own outputs a worker's output goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// The output of one worker's life.
#[derive(Debug, Default)]
pub struct Output {
    held: Option<Vec<u8>>,
    tail: VecDeque<String>,
    partial: Vec<u8>,
}

/// The output of one worker, shared between what reads it and what judges it.
pub type SharedOutput = Rc<RefCell<Output>>;

impl Output {
    /// Output that is passed on as it comes.
    pub fn speaking() -> SharedOutput {
        SharedOutput::default()
    }

    /// Output that is held back until [`Output::release`].
    pub fn held() -> SharedOutput {
        Rc::new(RefCell::new(Self { held: Some(Vec::new()), ..Self::default() }))
    }

    /// The last lines that the worker wrote.
    pub fn tail(&self) -> impl Iterator<Item = &str> {
        self.tail.iter().map(String::as_str)
    }

    /// The worker is ready: yields what was held back, to be passed on; what follows comes as it is written.
    pub fn release(&mut self) -> Option<Vec<u8>> {
        self.held.take()
    }

    /// Notes what was written. Yields what is to be passed on now.
    pub(super) fn write<'a>(&mut self, bytes: &'a [u8]) -> Option<std::borrow::Cow<'a, [u8]>> {
        self.note(bytes);
        match &mut self.held {
            Some(held) if held.len() + bytes.len() <= MOST_HELD => {
                held.extend_from_slice(bytes);
                None
            }
            Some(held) => {
                let mut all = std::mem::take(held);
                self.held = None;
                all.extend_from_slice(bytes);
                Some(all.into())
            }
            None => Some(bytes.into()),
        }
    }

    fn note(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if *byte == b'\n' || self.partial.len() >= 1024 {
                let line = String::from_utf8_lossy(&std::mem::take(&mut self.partial)).trim_end().to_owned();
                if !line.is_empty() {
                    self.tail.push_back(line);
                    if self.tail.len() > TAIL_LINES {
                        self.tail.pop_front();
                    }
                }
            }
            if *byte != b'\n' {
                self.partial.push(*byte);
            }
        }
    }
}

/// What makes two outputs the same failure: their text without the numbers in it (process ids, times, ports).
pub fn likeness(text: &str) -> String {
    let mut alike = String::with_capacity(text.len());
    for letter in text.chars() {
        let letter = if letter.is_ascii_digit() { '#' } else { letter };
        if letter != '#' || !alike.ends_with('#') {
            alike.push(letter);
        }
    }
    alike
}

/// Passes a pipe on until its end. With a prefix, whole lines, each behind it.
pub async fn relay(mut pipe: impl AsyncRead + Unpin, target: Target, prefix: Option<String>, output: SharedOutput) {
    let mut buffer = vec![0; 8 * 1024];
    let mut line = Vec::new();
    loop {
        let len = match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(len) => len,
        };
        let chunk = match &prefix {
            None => buffer[..len].to_vec(),
            Some(prefix) => prefixed(prefix, &buffer[..len], &mut line),
        };
        let passed = output.borrow_mut().write(&chunk).map(std::borrow::Cow::into_owned);
        if let Some(bytes) = passed {
            pass_on(target, &bytes).await;
        }
    }
    if let (Some(prefix), false) = (&prefix, line.is_empty()) {
        let last = prefixed(prefix, b"\n", &mut line);
        let passed = output.borrow_mut().write(&last).map(std::borrow::Cow::into_owned);
        if let Some(bytes) = passed {
            pass_on(target, &bytes).await;
        }
    }
}

/// The whole lines of `line` and `bytes`, each behind the prefix; the rest stays in `line`, bounded.
fn prefixed(prefix: &str, bytes: &[u8], line: &mut Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + prefix.len());
    for byte in bytes {
        line.push(*byte);
        if *byte == b'\n' || line.len() >= MOST_HELD {
            out.extend_from_slice(prefix.as_bytes());
            out.append(line);
            if *byte != b'\n' {
                out.push(b'\n');
            }
        }
    }
    out
}

/// Writes to haft's own output without blocking the master. Where nobody reads it, the text is lost, and haft lives on.
pub async fn pass_on(target: Target, bytes: &[u8]) {
    match target {
        Target::Stdout => {
            let mut out = tokio::io::stdout();
            out.write_all(bytes).await.ok();
            out.flush().await.ok();
        }
        Target::Stderr => {
            let mut out = tokio::io::stderr();
            out.write_all(bytes).await.ok();
            out.flush().await.ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_comes_out_once_and_whole() {
        let output = Output::held();
        let mut output = output.borrow_mut();
        assert_eq!(output.write(b"Error: no\n"), None);
        assert_eq!(output.write(b"  at x.js:1\n"), None);
        assert_eq!(output.release().expect("held"), b"Error: no\n  at x.js:1\n");
        assert_eq!(output.write(b"later\n").expect("passed on").as_ref(), b"later\n");
        assert_eq!(output.tail().collect::<Vec<_>>(), ["Error: no", "  at x.js:1", "later"]);
    }

    #[test]
    fn holding_is_bounded_and_loses_nothing() {
        let output = Output::held();
        let mut output = output.borrow_mut();
        let chunk = vec![b'a'; MOST_HELD];
        assert_eq!(output.write(&chunk), None);
        assert_eq!(output.write(b"bc").expect("passed on").len(), MOST_HELD + 2);
        assert!(output.release().is_none());
    }

    #[test]
    fn one_failure_with_other_numbers_is_the_same_failure() {
        assert_eq!(likeness("(node:12) Error at 10:07"), likeness("(node:3456) Error at 9:12"));
        assert_ne!(likeness("Error: a"), likeness("Error: b"));
    }

    #[test]
    fn a_prefix_stands_before_each_whole_line() {
        let mut line = Vec::new();
        assert_eq!(prefixed("[w0] ", b"one\ntw", &mut line), b"[w0] one\n");
        assert_eq!(prefixed("[w0] ", b"o\n", &mut line), b"[w0] two\n");
    }
}
