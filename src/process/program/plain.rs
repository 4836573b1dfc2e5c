//! The commands that need no look at anything: `node FILE`, or a script of package.json that is no more than that.

use super::node;

/// Whether a command is `node [OPTIONS] FILE [ARGUMENTS]`, of which Node runs the file in the process that haft starts.
pub fn is_node_with_file(words: &[String]) -> bool {
    if !words.first().is_some_and(|program| node::is_node(program)) {
        return false;
    }
    let options = node::own_options(words);
    let runs_file = !words[options.clone()].iter().any(|option| node::runs_no_file(option));
    let script = words.get(options.end).filter(|script| !script.starts_with('-') && !node::is_wrapper(script));
    runs_file && script.is_some()
}

/// Whether a command is a start of a server by Deno, which opens the channel as Node does.
pub fn is_deno(words: &[String]) -> bool {
    starts(words, "deno", &["run", "serve", "task"])
}

/// Whether a command is a start of a program by Bun, which knows Node's channel.
pub fn is_bun(words: &[String]) -> bool {
    starts(words, "bun", &["run", "start"])
}

fn starts(words: &[String], program: &str, verbs: &[&str]) -> bool {
    let Some((first, rest)) = words.split_first() else { return false };
    let verb = rest.iter().find(|word| !word.starts_with('-'));
    node::base_name(first) == program && verb.is_some_and(|verb| verbs.contains(&verb.as_str()) || verb.contains('.'))
}

/// The number of assignments before it, if the words of a script are `[NAME=value ...] node [OPTIONS] FILE [ARGUMENTS]`, or
/// a start by Deno.
pub fn of_script(words: &[String]) -> Option<usize> {
    let assignments = words.iter().take_while(|word| assignment(word).is_some()).count();
    let program = &words[assignments..];
    (is_node_with_file(program) || is_deno(program)).then_some(assignments)
}

/// The NODE_OPTIONS that it sets, and the command without them, if a command is `env [NAME=value ...] node FILE`.
pub fn of_env(command: &[String]) -> Option<(Option<String>, Vec<String>)> {
    let (env, words) = command.split_first().filter(|(program, _)| node::base_name(program) == "env")?;
    let (assigned, node) = words.split_at(of_script(words)?);
    let (options, assigned): (Vec<_>, Vec<_>) = assigned.iter().partition(|word| word.starts_with("NODE_OPTIONS="));
    let options = options.last().and_then(|word| Some(assignment(word)?.1.to_owned()));
    Some((options, std::iter::once(env).chain(assigned).chain(node).cloned().collect()))
}

/// The words of a script's text, if any shell would see the same ones: nothing is expanded or redirected, and quotation
/// marks hold nothing that a shell reads.
pub fn words(text: &str) -> Option<Vec<String>> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    let (mut words, mut word, mut mark) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match mark {
            Some(end) if c == end => mark = None,
            Some(_) if is_plain(c) || c == ' ' => word.get_or_insert_default().push(c),
            None if matches!(c, '\'' | '"') => {
                word.get_or_insert_default();
                mark = Some(c);
            }
            None if c == ' ' => words.extend(word.take()),
            None if is_plain(c) => word.get_or_insert_default().push(c),
            _ => return None,
        }
    }
    words.extend(word);
    mark.is_none().then_some(words)
}

/// The words of a script in which cross-env sets NODE_OPTIONS, without cross-env: the options get haft's part then.
pub fn without_cross_env(mut words: Vec<String>) -> Vec<String> {
    if words.first().is_some_and(|word| word == "cross-env")
        && words.iter().any(|word| word.starts_with("NODE_OPTIONS="))
    {
        words.remove(0);
    }
    words
}

/// A script of package.json that a package manager, or Node itself, is asked for.
#[derive(Debug, PartialEq)]
pub struct Asked<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it gets.
    pub arguments: &'a [String],
    /// How it was asked for.
    pub saying: String,
}

/// Reads the plain forms of such a command line: no option, no member of a workspace. All others are run as they stand.
pub fn script_asked(command: &[String]) -> Option<Asked<'_>> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let program = node::base_name(words.first()?);
    let named = match (program, &words[1..]) {
        ("npm" | "yarn" | "pnpm", ["start" | "stop" | "restart" | "test", ..]) => 1,
        ("npm" | "yarn" | "pnpm", ["run" | "run-script", _, ..]) => 2,
        (program, ["--run", _, ..]) if node::is_node(program) => 2,
        _ => return None,
    };
    let (name, rest) = (words[named], &command[named + 1..]);
    let dashes = rest.iter().position(|word| word == "--");
    let arguments = match (program, dashes) {
        ("yarn" | "pnpm", None) => rest,
        (_, None) if rest.is_empty() => rest,
        ("yarn" | "pnpm", Some(_)) => return None,
        (_, Some(0)) => &rest[1..],
        _ => return None,
    };
    let saying = [program].iter().chain(&words[1..=named]).copied().collect::<Vec<_>>().join(" ");
    (!name.starts_with('-')).then_some(Asked { name, arguments, saying })
}

/// Name and value of `NAME=value`.
pub fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named = !name.is_empty() && name.chars().all(good) && !name.starts_with(|c: char| c.is_ascii_digit());
    named.then_some((name, value))
}
