//! What stands in a log line: text of any origin, made harmless and of bounded length.
//!
//! Names and paths of programs, messages of clients and errors of other systems may hold line ends, escape sequences of
//! terminals, and characters that turn the direction of writing round. None of them may look like a line of haft's, or
//! change how one looks.

use std::fmt::{self, Write};

use tracing::field::Field;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::{FormatEvent, Writer, debug_fn};
use tracing_subscriber::fmt::{FmtContext, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Most bytes of one value in a line.
const MAX_VALUE: usize = 4096;

/// Whether a character does something else than being seen.
fn is_unsafe(letter: char) -> bool {
    letter.is_control()
        // Line and paragraph separators; marks that turn the direction of writing round; the byte order mark.
        || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// A text of any origin, safe to be shown on a terminal.
pub fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut safe, letter| {
        match is_unsafe(letter) {
            true => safe.extend(letter.escape_default()),
            false => safe.push(letter),
        }
        safe
    })
}

/// Passes text on, its unsafe characters as in a Rust string (`\n`, `\u{1b}`), and not more than [`MAX_VALUE`] bytes.
struct Escaping<W> {
    to: W,
    left: usize,
    cut: usize,
}

impl<W: Write> Escaping<W> {
    fn new(to: W) -> Self {
        Self { to, left: MAX_VALUE, cut: 0 }
    }

    /// States how much was left out, if anything was.
    fn finish(mut self) -> fmt::Result {
        if self.cut > 0 { write!(self.to, "... ({} bytes more)", self.cut) } else { Ok(()) }
    }
}

impl<W: Write> Write for Escaping<W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            let len = letter.len_utf8();
            if self.cut > 0 || len > self.left {
                self.cut += len;
                continue;
            }
            self.left -= len;
            if is_unsafe(letter) {
                write!(self.to, "{}", letter.escape_default())?
            } else {
                self.to.write_char(letter)?
            }
        }
        Ok(())
    }
}

/// A text as it may stand in a line.
pub(super) fn one_line(text: impl fmt::Display) -> String {
    let mut line = String::new();
    let mut escaping = Escaping::new(&mut line);
    // Writing into a string does not fail.
    write!(escaping, "{text}").ok();
    escaping.finish().ok();
    line
}

/// A text for people, without the numbers that Rust appends to the system's errors: ` (os error 2)`.
pub fn without_error_numbers(text: &str) -> String {
    const MARK: &str = " (os error ";
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MARK) {
        let number = &rest[at + MARK.len()..];
        let digits = number.bytes().take_while(u8::is_ascii_digit).count();
        let is_mark = digits > 0 && number[digits..].starts_with(')');
        let end = at + MARK.len() + if is_mark { digits + 1 } else { 0 };
        plain.push_str(&rest[..if is_mark { at } else { end }]);
        rest = &rest[end..];
    }
    plain + rest
}

/// How the fields of an event are written as text.
pub(super) fn text_fields() -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    debug_fn(|to: &mut Writer<'_>, field: &Field, value: &dyn fmt::Debug| {
        match field.name() {
            "message" => {}
            name if to.has_ansi_escapes() => write!(to, "\x1b[3m{name}\x1b[0m\x1b[2m=\x1b[0m")?,
            name => write!(to, "{name}=")?,
        }
        let mut escaping = Escaping::new(to);
        write!(escaping, "{value:?}")?;
        escaping.finish()
    })
    .delimited(" ")
}

/// An event as JSON. The format escapes what JSON demands; this adds what terminals and people could take for something
/// else, and bounds the length.
pub(super) struct JsonLine<F>(pub(super) F);

impl<S, N, F> FormatEvent<S, N> for JsonLine<F>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut to: Writer<'_>, event: &tracing::Event<'_>) -> fmt::Result {
        let mut line = String::new();
        self.0.format_event(ctx, Writer::new(&mut line), event)?;
        writeln!(to, "{}", json_line(line.trim_end_matches('\n')))
    }
}

fn json_line(line: &str) -> String {
    let shortened = if line.len() > MAX_VALUE { shortened(line) } else { None };
    let line = shortened.as_deref().unwrap_or(line);
    let mut safe = String::with_capacity(line.len());
    for letter in line.chars() {
        // Such a letter can only be within a string, and all of them have four digits at most.
        match is_unsafe(letter) {
            true => safe.push_str(&format!("\\u{:04x}", u32::from(letter))),
            false => safe.push(letter),
        }
    }
    safe
}

/// The same object with shorter strings.
fn shortened(line: &str) -> Option<String> {
    let mut object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(line).ok()?;
    for value in object.values_mut() {
        if let serde_json::Value::String(text) = value
            && text.len() > MAX_VALUE
        {
            let end = text.floor_char_boundary(MAX_VALUE);
            let more = text.len() - end;
            text.truncate(end);
            text.push_str(&format!("... ({more} bytes more)"));
        }
    }
    serde_json::to_string(&object).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_said_is_told_without_its_number() {
        let error = std::fs::read("/no/such").expect_err("no such file");
        assert_eq!(
            without_error_numbers(&format!("a: {error}; b: {error}")),
            "a: No such file or directory; b: No such file or directory"
        );
        for text in ["", " (os error ", "x (os error )", "x (os error 2", "ü (os error é)"] {
            assert_eq!(without_error_numbers(text), text);
        }
    }

    #[test]
    fn foreign_text_stays_within_its_line() {
        assert_eq!(one_line("a\nb\r\tc"), r"a\nb\r\tc");
        assert_eq!(one_line("\x1b[2J\u{9b}1m\x7f\u{2028}\u{202e}"), r"\u{1b}[2J\u{9b}1m\u{7f}\u{2028}\u{202e}");
        assert_eq!(one_line("Grüße, 世界 🙂 a\\b"), "Grüße, 世界 🙂 a\\b");
        let long = one_line("é".repeat(MAX_VALUE));
        assert!(long.len() < MAX_VALUE + 40 && long.ends_with("... (4096 bytes more)"), "{}", long.len());
    }

    #[test]
    fn foreign_text_stays_within_its_string_in_json() {
        let text = "a\n\x1b]0;x\x07\u{9b}\u{7f}\u{2029}\u{2066}{\"b\":1}";
        let line = json_line(&serde_json::json!({"level": "INFO", "message": text}).to_string());
        assert!(!line.chars().any(is_unsafe), "{line}");
        let read: serde_json::Value = serde_json::from_str(&line).expect("JSON");
        assert_eq!(read["message"], text);
        let long = json_line(&serde_json::json!({"n": 1, "message": "é".repeat(MAX_VALUE)}).to_string());
        let read: serde_json::Value = serde_json::from_str(&long).expect("JSON");
        assert!(long.len() < MAX_VALUE + 100 && read["n"] == 1, "{}", long.len());
    }
}
