//! A strict reader of `/metrics` for tests, written from the formats' specifications and not from our encoder:
//! Prometheus exposition formats 0.0.4 and OpenMetrics 1.0.0.

use std::collections::{BTreeMap, BTreeSet};

use super::Format;

/// A sample's name and its labels.
pub(super) type Series = (String, BTreeMap<String, String>);

/// What a page holds.
#[derive(Debug, Default)]
pub(super) struct Exposition {
    /// Each family's type by its name.
    pub(super) kinds: BTreeMap<String, String>,
    /// Each sample's value.
    pub(super) samples: BTreeMap<Series, f64>,
}

impl Exposition {
    /// Reads a page; panics with the line that is wrong.
    pub(super) fn read(page: &str, format: Format) -> Self {
        assert!(page.ends_with('\n'), "the last line has no end");
        let lines = match format {
            Format::Text => page,
            Format::OpenMetrics => page.strip_suffix("# EOF\n").expect("the end marker"),
        };
        let mut read = Self::default();
        let (mut helped, mut family) = (BTreeSet::new(), String::new());
        for line in lines.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, text) = help.split_once(' ').expect(line);
                assert!(!text.is_empty() && helped.insert(name.to_owned()), "{line}");
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect(line);
                assert!(helped.contains(name), "no help before {line}");
                assert!(read.kinds.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
                family = name.to_owned();
            } else {
                let (series, value) = sample(line);
                let allowed = sample_names(&family, &read.kinds[&family], format);
                assert!(allowed.contains(&series.0), "{line} is not one of {allowed:?}");
                assert!(read.samples.insert(series, value).is_none(), "twice: {line}");
            }
        }
        read
    }

    /// The value of one sample.
    pub(super) fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// The sum over all samples of a name.
    pub(super) fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|((of, _), _)| of == name).map(|(_, value)| value).sum()
    }

    /// The names of a sample's labels, or nothing if there is no such sample.
    pub(super) fn label_names(&self, name: &str) -> Vec<&str> {
        let series = self.samples.keys().find(|(of, _)| of == name);
        series.map(|(_, labels)| labels.keys().map(String::as_str).collect()).unwrap_or_default()
    }
}

fn sample_names(family: &str, kind: &str, format: Format) -> Vec<String> {
    let suffixes: &[&str] = match (kind, format) {
        ("gauge", _) | ("counter", Format::Text) => &[""],
        ("counter", Format::OpenMetrics) => &["_total"],
        ("info", Format::OpenMetrics) => &["_info"],
        ("histogram", _) => &["_bucket", "_sum", "_count"],
        other => panic!("a type that the format does not know: {other:?}"),
    };
    suffixes.iter().map(|suffix| format!("{family}{suffix}")).collect()
}

fn sample(line: &str) -> (Series, f64) {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let value = value.replace("+Inf", "inf").parse().expect(line);
    let (name, labels) = match series.split_once('{') {
        Some((name, labels)) => (name, read_labels(labels.strip_suffix('}').expect(line))),
        None => (series, BTreeMap::new()),
    };
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    assert!(name.starts_with(first) && name.chars().all(|c| first(c) || c.is_ascii_digit()), "{line}");
    ((name.to_owned(), labels), value)
}

fn read_labels(mut text: &str) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    while !text.is_empty() {
        let (name, rest) = text.split_once("=\"").expect(text);
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next().expect(text) {
                (end, '"') => break end,
                (_, '\\') => value.push(match chars.next().expect(text).1 {
                    'n' => '\n',
                    escaped @ ('\\' | '"') => escaped,
                    other => panic!("an unknown escape {other:?} in {text}"),
                }),
                (_, plain) => value.push(plain),
            }
        };
        assert!(labels.insert(name.to_owned(), value).is_none(), "twice: {name}");
        text = &rest[end + 1..];
        text = text.strip_prefix(',').unwrap_or(text);
    }
    labels
}
