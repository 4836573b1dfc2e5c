//! Variables for the workers' environment, from a file (`--worker-env`).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::sys::trust::{self, Untrusted};

/// Largest file: the kernel passes on no more (`MAX_ARG_STRLEN` for each, execve(2)).
const LARGEST: u64 = 128 << 10;

/// Why the file is of no use. Each text names the cure.
#[derive(Debug, thiserror::Error)]
pub enum EnvFileError {
    /// It cannot be read.
    #[error("--worker-env {}: {source}; check its name and whether haft's user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// Others could change it.
    #[error("--worker-env: {0}")]
    Untrusted(#[source] Untrusted),
    /// A line that sets nothing.
    #[error("{}:{line}: {why}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        why: &'static str,
    },
}

/// Reads the file. Of a name that comes twice the last one counts.
///
/// # Errors
///
/// When it cannot be read or trusted, or a line is no variable.
pub fn read(path: &Path) -> Result<Vec<(String, String)>, EnvFileError> {
    let unreadable = |source| EnvFileError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    trust::check_file(path, &metadata).map_err(EnvFileError::Untrusted)?;
    let mut text = String::new();
    file.take(LARGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
    let wrong = |line, why| EnvFileError::Line { path: path.to_owned(), line, why };
    if text.len() as u64 > LARGEST {
        return Err(wrong(1, "it is larger than 128 KiB: is it the right file?"));
    }
    let lines = (1..).zip(text.lines().map(str::trim));
    let lines = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(number, line)| variable(line).map_err(|why| wrong(number, why))).collect()
}

fn variable(line: &str) -> Result<(String, String), &'static str> {
    // As a shell would read it, too.
    let line = line.strip_prefix("export ").unwrap_or(line);
    let (name, value) = line.split_once('=').ok_or("write NAME=VALUE")?;
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    if name.is_empty() || !name.bytes().all(is_name) || name.starts_with(|first: char| first.is_ascii_digit()) {
        return Err("a name has letters, digits and _ only, and no digit first; there is no space before the =");
    }
    if value.contains('\0') {
        return Err("a value has no NUL");
    }
    let value = value.trim();
    let inside = |quote: char| value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
    let value = inside('"').or_else(|| inside('\'')).unwrap_or(value);
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn of(text: &str) -> Result<Vec<(String, String)>, String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("env");
        fs::write(&path, text).expect("a file");
        read(&path).map_err(|error| error.to_string())
    }

    #[test]
    fn a_line_is_a_variable_a_comment_or_wrong() {
        let text = "# comment\n\nA=1\n  export B=two words \nC=\"a = 'b'\"\nD='#'\nE=\n";
        let pairs = [("A", "1"), ("B", "two words"), ("C", "a = 'b'"), ("D", "#"), ("E", "")];
        let expected = pairs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(of(text).expect("variables"), expected);
        for (text, why) in [
            ("A=1\nB\n", "env:2: write NAME=VALUE"),
            ("A =1", "env:1: a name has letters"),
            ("1A=1", "no digit first"),
            ("=1", "a name has letters"),
            ("A=\0", "no NUL"),
        ] {
            let error = of(text).expect_err(text);
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_file_that_others_may_change_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("env");
        assert!(read(&path).expect_err("none").to_string().contains("check its name"));
        fs::write(&path, "A=1\n").expect("a file");
        fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("mode");
        assert!(read(&path).expect_err("refused").to_string().contains("chmod go-w"));
    }
}
