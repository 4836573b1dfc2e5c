//! The YAML file: its keys and values as text, and the line of each.
//!
//! A value is kept as it is written (`1.10` stays `1.10`), since it is read exactly like what is typed after a flag.
//! The only module that knows the YAML library.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use clap::Arg;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_yaml::{Mapping, Value};

use crate::flags::error::FlagsError;
use crate::sys::trust;

/// Larger than any configuration; keeps a slip such as `-c /dev/zero` from eating the memory.
const LARGEST: u64 = 256 << 10;

/// More brackets than these are never open at once. The YAML library takes seconds for a hundred thousand.
const MAX_OPEN: usize = 100;

/// A file's lines of `key: value`.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    text: String,
    entries: Vec<(String, YamlValue)>,
}

/// A value, as it is written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum YamlValue {
    /// Left empty, `null` or `~`: as if the key were not there.
    Nothing,
    /// A word, a number, a text.
    One(String),
    /// A list of those.
    Many(Vec<String>),
    /// Something that no flag takes: a mapping, a list with gaps or with lists in it.
    Odd,
}

impl ConfigFile {
    /// Reads the file; an empty one is fine.
    pub(super) fn read(path: &Path) -> Result<Self, FlagsError> {
        let unreadable = |source| FlagsError::Unreadable { path: path.to_owned(), source };
        let refuse = |why| Err(FlagsError::NotConfiguration { path: path.to_owned(), why });
        let mut bytes = Vec::new();
        let file = std::fs::File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        // A pipe was given on the command line, by its user.
        if metadata.is_file() {
            trust::check_file(path, &metadata).map_err(FlagsError::Untrusted)?;
        }
        file.take(LARGEST + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > LARGEST {
            return refuse("it is larger than 256 KiB: is it the right file?");
        }
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(path, text),
            Err(_) => refuse("it is not UTF-8 text: is it the right file?"),
        }
    }

    fn parse(path: &Path, text: String) -> Result<Self, FlagsError> {
        if let Some(line) = too_many_open(&text) {
            let why = format!("more than {MAX_OPEN} brackets are open here: is it the right file?");
            return Err(FlagsError::Line { path: path.to_owned(), line, why });
        }
        let wrong = |error: serde_yaml::Error| {
            let line = error.location().map_or(1, |location| location.line());
            FlagsError::Line { path: path.to_owned(), line, why: explain(&error, &text) }
        };
        let yaml = || serde_yaml::Deserializer::from_str(&text);
        let shapes = yaml().deserialize_any(Shapes).map_err(wrong)?;
        let entries =
            if shapes.is_empty() { Vec::new() } else { yaml().deserialize_map(TextVisitor(&shapes)).map_err(wrong)? };
        Ok(Self { path: path.to_owned(), text, entries })
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, &YamlValue)> {
        self.entries.iter().map(|(key, node)| (key.as_str(), node))
    }

    /// Where a key has a value, if it has.
    pub(super) fn index_of(&self, key: &str) -> Option<usize> {
        self.entries.iter().position(|(known, node)| known == key && *node != YamlValue::Nothing)
    }

    /// The place of an entry: `haft.yaml:3`.
    pub(super) fn place(&self, index: usize) -> String {
        format!("{}:{}", self.path.display(), self.line(index))
    }

    /// An error at an entry.
    pub(super) fn refuse(&self, index: usize, why: String) -> FlagsError {
        FlagsError::Line { path: self.path.clone(), line: self.line(index), why }
    }

    /// The line of an entry's key. The YAML library gives a place only with an error, so one is made there.
    fn line(&self, index: usize) -> usize {
        let stopped = serde_yaml::Deserializer::from_str(&self.text).deserialize_map(StopAt(index));
        stopped.err().and_then(|error| error.location()).map_or(1, |location| location.line())
    }
}

/// The first line in which too many brackets are open.
fn too_many_open(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    text.lines().zip(1..).find_map(|(line, number)| {
        line.bytes()
            .any(|byte| {
                match byte {
                    b'[' | b'{' => open += 1,
                    b']' | b'}' => open = open.saturating_sub(1),
                    _ => {}
                }
                open > MAX_OPEN
            })
            .then_some(number)
    })
}

/// The YAML library refused to write.
#[derive(Debug, thiserror::Error)]
#[error("the configuration cannot be written as YAML: {0}")]
pub struct YamlError(#[source] serde_yaml::Error);

/// Writes keys and values as YAML, numbers and truth values as such.
pub(super) fn write(entries: impl IntoIterator<Item = (&'static str, YamlValue)>) -> Result<String, YamlError> {
    let value = |text: String| match (text.parse::<u64>(), text.parse::<bool>()) {
        (Ok(number), _) if number.to_string() == text => Value::from(number),
        (_, Ok(truth)) => Value::from(truth),
        _ => Value::from(text),
    };
    let mapping = entries.into_iter().filter_map(|(key, node)| match node {
        YamlValue::Nothing | YamlValue::Odd => None,
        YamlValue::One(text) => Some((Value::from(key), value(text))),
        YamlValue::Many(texts) => Some((Value::from(key), texts.into_iter().map(value).collect())),
    });
    serde_yaml::to_string(&mapping.collect::<Mapping>()).map_err(YamlError)
}

/// The library's message without its place, which stands in front already, and with a hint where YAML is in the way
/// of how haft's values are written.
fn explain(error: &serde_yaml::Error, text: &str) -> String {
    let Some(place) = error.location() else { return error.to_string() };
    let message = error.to_string().replacen(&format!(" at line {} column {}", place.line(), place.column()), "", 1);
    let line = text.lines().nth(place.line() - 1).unwrap_or_default();
    let value = line.split_once(": ").or_else(|| line.split_once("- ")).map_or("", |(_, value)| value.trim_start());
    if value.starts_with(['*', '[', '&', '!', '%', '@', '`']) {
        format!("{message} (put a text that begins with {} in quotes)", &value[..1])
    } else {
        message
    }
}

/// First reading: which keys there are, and of what shape their values are.
struct Shapes;

impl<'de> Visitor<'de> for Shapes {
    type Value = Vec<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lines of `key: value`")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_none<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut shapes = Vec::new();
        while let Some((_, shape)) = map.next_entry::<String, Value>()? {
            shapes.push(shape);
        }
        Ok(shapes)
    }
}

/// Second reading: the same values as the text they are written as.
struct TextVisitor<'a>(&'a [Value]);

impl<'de> Visitor<'de> for TextVisitor<'_> {
    type Value = Vec<(String, YamlValue)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lines of `key: value`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut entries = Vec::<(String, YamlValue)>::new();
        for shape in self.0 {
            let twice = |key: &str| entries.iter().any(|(known, _)| known == key);
            let judge = |key: &str| twice(key).then(|| format!("{key}: it is given twice"));
            let Some(key) = map.next_key_seed(KeySeed(judge))? else { break };
            let node = match shape {
                Value::Null => map.next_value::<IgnoredAny>().map(|_| YamlValue::Nothing)?,
                Value::Sequence(list) if list.iter().all(is_text) => YamlValue::Many(map.next_value()?),
                shape if is_text(shape) => YamlValue::One(map.next_value()?),
                _ => map.next_value::<IgnoredAny>().map(|_| YamlValue::Odd)?,
            };
            entries.push((key, node));
        }
        Ok(entries)
    }
}

/// Whether a value is written as one text.
fn is_text(shape: &Value) -> bool {
    matches!(shape, Value::Bool(_) | Value::Number(_) | Value::String(_))
}

/// Reads a key, unless the function returns what is wrong with it.
struct KeySeed<F>(F);

impl<'de, F: Fn(&str) -> Option<String>> DeserializeSeed<'de> for KeySeed<F> {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<F: Fn(&str) -> Option<String>> Visitor<'_> for KeySeed<F> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<String, E> {
        (self.0)(key).map_or_else(|| Ok(key.to_owned()), |why| Err(E::custom(why)))
    }
}

/// Fails at the key with this index.
struct StopAt(usize);

impl<'de> Visitor<'de> for StopAt {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lines of `key: value`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        for index in 0.. {
            let judge = |_: &str| (index == self.0).then(String::new);
            if map.next_key_seed(KeySeed(judge))?.is_none() {
                break;
            }
            map.next_value::<IgnoredAny>()?;
        }
        Ok(())
    }
}

/// A flag's key in the file: its long name, or for the positional COMMAND its own.
pub(super) fn key(arg: &Arg) -> String {
    arg.get_long().unwrap_or(arg.get_id().as_str()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<ConfigFile, FlagsError> {
        ConfigFile::parse(Path::new("haft.yaml"), text.to_owned())
    }

    fn one(text: &str) -> YamlValue {
        YamlValue::One(text.to_owned())
    }

    #[test]
    fn nothing_is_a_file_too() {
        for text in ["", "\n", "# only a comment\n", "---\n", "{}", "~"] {
            assert_eq!(parse(text).expect(text).entries().count(), 0, "{text:?}");
        }
    }

    #[test]
    fn a_value_is_kept_as_it_is_written() {
        for (text, node) in [
            ("1.10", one("1.10")),
            ("0x10", one("0x10")),
            ("True", one("True")),
            ("'null'", one("null")),
            (":3000", one(":3000")),
            ("unix:/run/x", one("unix:/run/x")),
            ("\"a\\tb\"", one("a\tb")),
            ("", YamlValue::Nothing),
            ("~", YamlValue::Nothing),
            ("[3000, 1.10, 'x y']", YamlValue::Many(vec!["3000".to_owned(), "1.10".to_owned(), "x y".to_owned()])),
            ("[]", YamlValue::Many(Vec::new())),
            ("{a: 1}", YamlValue::Odd),
            ("[1, [2]]", YamlValue::Odd),
            ("[1, ~]", YamlValue::Odd),
        ] {
            let file = parse(&format!("# comment\nkey: {text}\n")).expect(text);
            assert_eq!(file.entries().collect::<Vec<_>>(), [("key", &node)]);
        }
    }

    #[test]
    fn each_key_has_its_line() {
        let file = parse("# one\na: 1\n\nb:\n  - 2\n  - 3\n'c': |\n  x\n  y\n").expect("a file");
        let places: Vec<_> = (0..3).map(|index| file.place(index)).collect();
        assert_eq!(places, ["haft.yaml:2", "haft.yaml:4", "haft.yaml:7"]);
        assert_eq!((file.index_of("b"), file.index_of("e")), (Some(1), None));
    }

    #[test]
    fn what_is_not_a_file_of_keys_is_refused_at_its_line() {
        for (text, message) in [
            ("a: 1\nb: 2\na: 3\n", "haft.yaml:3: a: it is given twice"),
            ("- 1\n", "haft.yaml:1: invalid type: sequence, expected lines of `key: value`"),
            ("text", "haft.yaml:1: invalid type: string \"text\", expected lines of `key: value`"),
            ("a: 1\nb: [1, 2\n", "haft.yaml:3: "),
            ("a: 1\n\tb: 2\n", "haft.yaml:2: "),
            ("a: 1\nb: *x\n", "haft.yaml:2: unknown anchor (put a text that begins with * in quotes)"),
            ("a: *\n", "haft.yaml:1: "),
            ("a: [::1]:3000\n", "haft.yaml:1: "),
            ("[a]: 1\n", "haft.yaml:1: "),
            ("a: 1\n---\nb: 2\n", "haft.yaml:1: "),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.starts_with(message), "{text:?}: {error}");
        }
    }

    #[test]
    fn brackets_without_end_are_refused_before_they_are_parsed() {
        for open in ["[", "{a: "] {
            let error = parse(&format!("a: 1\nb: {}", open.repeat(50_000))).expect_err("too deep").to_string();
            assert!(error.starts_with("haft.yaml:2: more than 100 brackets are open here"), "{error}");
        }
        let closed = format!("a: [{}x]\n", "'[]', ".repeat(1_000));
        assert!(parse(&closed).is_ok());
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_path() {
        let temp = tempfile::tempdir().expect("folder");
        let error = |path: &Path| ConfigFile::read(path).expect_err("no file").to_string();
        let missing = temp.path().join("missing.yaml");
        assert!(error(&missing).contains("missing.yaml: No such file or directory"));
        assert!(error(temp.path()).contains("Is a directory"));
        let binary = temp.path().join("binary");
        std::fs::write(&binary, [0xff, 0xfe]).expect("file");
        assert!(error(&binary).contains("not UTF-8"));
        assert!(error(Path::new("/dev/zero")).contains("larger than 256 KiB"));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let entries = [
            ("a", one("1")),
            ("b", one("null")),
            ("c", YamlValue::Many(vec!["007".to_owned(), "*".to_owned()])),
            ("d", one("true")),
        ];
        let text = write(entries.clone()).expect("YAML");
        assert_eq!(text, "a: 1\nb: 'null'\nc:\n- '007'\n- '*'\nd: true\n");
        assert_eq!(parse(&text).expect(&text).entries().collect::<Vec<_>>(), entries.each_ref().map(|(k, n)| (*k, n)));
    }
}
