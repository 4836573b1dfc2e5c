//! Scripts named instead of the program that runs them.

use std::path::Path;

/// The command that runs what `word` names, if it is a script or a folder with a package.json: `server.js` is run by
/// `node server.js`.
pub fn command_for(word: &str) -> Option<String> {
    let path = Path::new(word);
    let runner = match path.extension().and_then(|ending| ending.to_str()) {
        Some("js" | "mjs" | "cjs" | "ts" | "mts" | "cts") => "node",
        Some("py") => "python3",
        Some("rb") => "ruby",
        Some("sh") => "sh",
        _ if path.is_dir() && path.join("package.json").is_file() => "node",
        _ => return None,
    };
    Some(format!("{runner} {word}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_run_by_what_its_name_says() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().to_str().expect("text");
        assert_eq!(command_for(path), None);
        std::fs::write(folder.path().join("package.json"), "{}").expect("a file");
        assert_eq!(command_for(path), Some(format!("node {path}")));
        for (word, command) in [
            ("server.js", Some("node server.js")),
            ("./dist/main.mjs", Some("node ./dist/main.mjs")),
            ("a.cjs", Some("node a.cjs")),
            ("app.ts", Some("node app.ts")),
            ("worker.py", Some("python3 worker.py")),
            ("config.ru.rb", Some("ruby config.ru.rb")),
            ("start.sh", Some("sh start.sh")),
            ("node", None),
            ("server", None),
            (".js", None),
            ("", None),
        ] {
            assert_eq!(command_for(word).as_deref(), command, "{word}");
        }
    }
}
