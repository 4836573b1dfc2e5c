//! Where Engine.IO listens in each worker, as haft's preload reports it.
//!
//! A path is a worker's own word, and the clients of a path may be other workers' as well. So a request below a path that
//! any worker has is asked for a tag, which no worker can forge; but only a path that all workers have decides where a
//! session begins.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::ids::WorkerId;
use crate::peek::{Request, request};

/// Most paths of one worker. A program has one or a few.
const MAX_OF_ONE: usize = 16;
/// Longest path, in bytes.
const MAX_LEN: usize = 256;

/// The path of an Engine.IO, with a slash at both ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EnginePath(String);

impl EnginePath {
    /// Reads one; `None` for what no request that comes to haft could have.
    pub fn read(text: &str) -> Option<Self> {
        let is_path = text.starts_with('/') && text.ends_with('/') && text.len() <= MAX_LEN;
        (is_path && text.bytes().all(|byte| byte.is_ascii_graphic())).then(|| Self(text.to_owned()))
    }
}

/// What is known of the path of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Learnt {
    /// It is no Engine.IO's.
    Nothing,
    /// It is that of an Engine.IO, or below it.
    Below,
    /// It is that of an Engine.IO of all workers.
    Begins,
}

/// The paths of each worker.
#[derive(Debug, Default)]
pub struct EnginePaths(BTreeMap<WorkerId, Vec<EnginePath>>);

impl EnginePaths {
    /// A worker has an Engine.IO there. Of too many, the first ones are kept.
    pub fn learn(&mut self, worker: WorkerId, path: EnginePath) {
        match self.0.entry(worker) {
            Entry::Vacant(entry) => {
                tracing::debug!(worker = worker.0, "it has an Engine.IO at {}", path.0);
                entry.insert(vec![path]);
            }
            Entry::Occupied(entry) => {
                let paths = entry.into_mut();
                if paths.len() < MAX_OF_ONE && !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
    }

    /// A worker has ended.
    pub fn ended(&mut self, worker: WorkerId) {
        self.0.remove(&worker);
    }

    /// What the path of a request is, where these workers can be given new sessions.
    pub fn look(&self, request: &Request<'_>, workers: impl IntoIterator<Item = WorkerId>) -> Learnt {
        let is_below = |path: &EnginePath| request.is_below(&path.0);
        if !self.0.values().flatten().any(is_below) {
            return Learnt::Nothing;
        }
        let is_at = |path: &EnginePath| request::is_at(request.path, &path.0);
        let begins = |worker| self.0.get(&worker).is_some_and(|paths| paths.iter().any(is_at));
        // There may be pages at the same path.
        if request.is_engine_io() && workers.into_iter().all(begins) { Learnt::Begins } else { Learnt::Below }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(1);
    const B: WorkerId = WorkerId(2);

    fn look(paths: &EnginePaths, target: &str) -> Learnt {
        let bytes = format!("GET {target} HTTP/1.1\r\n\r\n");
        match request::look(bytes.as_bytes(), 0, true) {
            request::RequestParse::Request(request) => paths.look(&request, [A, B]),
            _ => panic!("{target}"),
        }
    }

    fn path(text: &str) -> EnginePath {
        EnginePath::read(text).expect("a path")
    }

    #[test]
    fn a_path_of_one_worker_finds_sessions_and_one_of_all_begins_them() {
        let mut paths = EnginePaths::default();
        assert_eq!(look(&paths, "/a/?EIO=4"), Learnt::Nothing);
        paths.learn(A, path("/a/"));
        for target in ["/a/?EIO=4", "/a/?sid=1", "/a/x", "/a"] {
            assert_eq!(look(&paths, target), Learnt::Below, "{target}");
        }
        paths.learn(B, path("/b/"));
        paths.learn(B, path("/a/"));
        for (target, learnt) in [
            ("/a/?EIO=4&transport=polling", Learnt::Begins),
            ("/a?EIO=4", Learnt::Begins),
            ("/a/", Learnt::Below),
            ("/a/x?EIO=4", Learnt::Below),
            ("/b/?EIO=4", Learnt::Below),
            ("/ab/?EIO=4", Learnt::Nothing),
        ] {
            assert_eq!(look(&paths, target), learnt, "{target}");
        }
        paths.ended(B);
        assert_eq!(look(&paths, "/b/?EIO=4"), Learnt::Nothing);
    }

    #[test]
    fn one_worker_has_few_and_short_ones() {
        let mut paths = EnginePaths::default();
        (0..100).for_each(|number| paths.learn(A, path(&format!("/{number}/"))));
        paths.learn(A, path("/0/"));
        assert_eq!(paths.0[&A].len(), MAX_OF_ONE);
        let long = format!("/{}/", "a".repeat(MAX_LEN));
        for text in ["", "a/", "/a", "/a b/", "/\n/", "/\u{e9}/", &long] {
            assert_eq!(EnginePath::read(text), None, "{text:?}");
        }
    }
}
