//! Just enough of the shell's grammar (POSIX, "Shell Command Language") to find the commands in a text and to write one
//! of them anew. What is not understood is left as it is.

use std::ops::Range;

/// A text for a shell, taken apart.
#[derive(Debug, PartialEq)]
pub struct Script {
    /// In the order of the text.
    pub commands: Vec<Simple>,
    /// Whether it is only pipelines one after another (`&&`, `;`, new line): no branch, no loop, no background.
    pub chain: bool,
}

/// One simple command: assignments, program, arguments.
#[derive(Debug, PartialEq)]
pub struct Simple {
    /// Never empty.
    pub words: Vec<Word>,
    /// Which pipeline of the chain it is in, from 0.
    pub pipeline: usize,
}

/// One word, or a redirection.
#[derive(Debug, PartialEq)]
pub struct Word {
    /// What it comes to; `None` if only a running shell can tell (expansions, patterns).
    pub text: Option<String>,
    /// Where it is in the script.
    pub at: Range<usize>,
    /// `>file` and the like: no argument.
    pub redirection: bool,
}

/// Words after which another command begins.
const LEADING: &[&str] = &["if", "then", "else", "elif", "while", "until", "do", "{", "!", "time"];
/// Words that end or shape a compound command and are no command themselves.
const COMPOUND: &[&str] = &["fi", "done", "esac", "}", "for", "case", "in", "function", "select"];

/// Takes a text apart; `None` if it is beyond this grammar (here-documents, unbalanced quotes).
pub fn parse(text: &str) -> Option<Script> {
    let mut lexer = Lexer { text, at: 0 };
    let mut script = Script { commands: Vec::new(), chain: true };
    let (mut words, mut pipeline) = (Vec::new(), 0);
    while let Some(token) = lexer.token()? {
        let operator = match token {
            Token::Word(word) => {
                words.push(word);
                continue;
            }
            Token::Operator(operator) => operator,
        };
        script.close(&mut words, pipeline, text);
        match operator {
            "|" => {}
            "&&" | ";" | "\n" => pipeline += 1,
            _ => script.chain = false,
        }
    }
    script.close(&mut words, pipeline, text);
    Some(script)
}

impl Script {
    fn close(&mut self, words: &mut Vec<Word>, pipeline: usize, text: &str) {
        let mut words = std::mem::take(words);
        // As it is written: quoted, none of them means anything.
        let is = |word: &Word, list: &[&str]| list.contains(&&text[word.at.clone()]);
        let leading = words.iter().take_while(|word| is(word, LEADING)).count();
        self.chain &= leading == 0;
        words.drain(..leading);
        match words.first() {
            None => {}
            Some(first) if is(first, COMPOUND) => self.chain = false,
            Some(_) if words.iter().all(|word| word.redirection) => {}
            Some(_) => self.commands.push(Simple { words, pipeline }),
        }
    }
}

enum Token<'a> {
    Word(Word),
    Operator(&'a str),
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    /// The next token, `Some(None)` at the end, `None` if the text is not understood.
    #[allow(clippy::option_option, reason = "the end and a failure are different things, and `?` passes on the second")]
    fn token(&mut self) -> Option<Option<Token<'a>>> {
        loop {
            let rest = self.rest();
            if rest.starts_with("\\\n") {
                self.at += 2;
            } else if rest.starts_with([' ', '\t', '\r']) {
                self.at += 1;
            } else if rest.starts_with('#') {
                self.at += rest.find('\n').unwrap_or(rest.len());
            } else {
                break;
            }
        }
        let rest = self.rest();
        if rest.is_empty() {
            return Some(None);
        }
        if let Some(redirection) = self.redirection()? {
            return Some(Some(Token::Word(redirection)));
        }
        for operator in ["&&", "||", ";;", "|&", ";", "|", "&", "(", ")", "\n"] {
            if rest.starts_with(operator) {
                self.at += operator.len();
                return Some(Some(Token::Operator(operator)));
            }
        }
        self.word().map(|word| Some(Token::Word(word)))
    }

    /// `2>&1`, `>>file`, `&>file`: the operator and its target as one word.
    #[allow(clippy::option_option, reason = "as for a token")]
    fn redirection(&mut self) -> Option<Option<Word>> {
        let (start, rest) = (self.at, self.rest());
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let operators = ["&>>", "&>", ">>", ">&", "<&", "<>", ">|", ">", "<"];
        let after = &rest[digits..];
        if after.starts_with("<<") || after.starts_with("<(") || after.starts_with(">(") {
            return None;
        }
        let Some(operator) = operators.iter().find(|operator| after.starts_with(**operator)) else {
            return Some(None);
        };
        self.at += digits + operator.len();
        self.at += self.rest().len() - self.rest().trim_start_matches([' ', '\t']).len();
        self.word()?;
        Some(Some(Word { text: None, at: start..self.at, redirection: true }))
    }

    fn word(&mut self) -> Option<Word> {
        let (start, mut text, mut plain) = (self.at, String::new(), true);
        while let Some(next) = self.peek() {
            match next {
                ' ' | '\t' | '\n' | '\r' | ';' | '|' | '&' | '(' | ')' | '<' | '>' => break,
                '\'' => text.push_str(self.single_quoted()?),
                '"' => plain &= self.double_quoted(&mut text)?,
                '\\' => {
                    self.next();
                    text.extend(self.next().filter(|escaped| *escaped != '\n'));
                }
                '$' | '`' => {
                    self.expansion()?;
                    plain = false;
                }
                _ => {
                    plain &= !matches!(next, '*' | '?' | '[' | '~');
                    text.extend(self.next());
                }
            }
        }
        // Nothing was taken where a word must be: a parenthesis in a place that this grammar does not know.
        (self.at > start).then(|| Word { text: plain.then_some(text), at: start..self.at, redirection: false })
    }

    fn single_quoted(&mut self) -> Option<&'a str> {
        let inside = &self.rest()[1..];
        let length = inside.find('\'')?;
        self.at += length + 2;
        Some(&inside[..length])
    }

    /// Adds to `text`; whether it was free of expansions.
    fn double_quoted(&mut self, text: &mut String) -> Option<bool> {
        self.next();
        let mut plain = true;
        loop {
            match self.peek()? {
                '"' => {
                    self.next();
                    return Some(plain);
                }
                '\\' => {
                    self.next();
                    let escaped = self.next()?;
                    if !matches!(escaped, '$' | '`' | '"' | '\\' | '\n') {
                        text.push('\\');
                    }
                    text.extend((escaped != '\n').then_some(escaped));
                }
                '$' | '`' => {
                    self.expansion()?;
                    plain = false;
                }
                _ => text.extend(self.next()),
            }
        }
    }

    /// Steps over `$x`, `${x}`, `$(x)` or `` `x` ``.
    fn expansion(&mut self) -> Option<()> {
        let closing = match self.next()? {
            '`' => '`',
            _ if self.rest().starts_with('(') => ')',
            _ if self.rest().starts_with('{') => '}',
            _ => return Some(()),
        };
        let mut depth = 0_u32;
        if closing == '`' {
            depth = 1;
        }
        loop {
            match self.peek()? {
                '\'' if closing == ')' => {
                    self.single_quoted()?;
                    continue;
                }
                '"' if closing == ')' => {
                    self.double_quoted(&mut String::new())?;
                    continue;
                }
                '\\' => {
                    self.next();
                }
                character if character == closing => depth -= 1,
                '(' if closing == ')' => depth += 1,
                '{' if closing == '}' => depth += 1,
                _ => {}
            }
            self.next();
            if depth == 0 {
                return Some(());
            }
        }
    }
}

/// Splits a text into words as a shell would if there were nothing to expand (`env -S` does so); `None` if it cannot.
pub fn split(text: &str) -> Option<Vec<String>> {
    let script = parse(text)?;
    match script.commands.as_slice() {
        [] => Some(Vec::new()),
        [only] => only.words.iter().map(|word| word.text.clone()).collect(),
        _ => None,
    }
}

/// A word as a shell must read it.
pub fn quote(word: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(bare) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// `NAME=value` as a shell must read it before a command: a quoted name would be none.
pub fn quote_assignment(word: &str) -> String {
    match assignment(word) {
        Some((name, value)) => format!("{name}={}", if value.is_empty() { String::new() } else { quote(value) }),
        None => quote(word),
    }
}

/// Words as one line for a shell.
pub fn join(words: &[String]) -> String {
    words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")
}

/// Name and value of `NAME=value`.
pub fn assignment(word: &str) -> Option<(&str, &str)> {
    let (name, value) = word.split_once('=')?;
    let good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let named = !name.is_empty() && name.chars().all(good) && !name.starts_with(|c: char| c.is_ascii_digit());
    named.then_some((name, value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The commands of a text, each as its words; `?` where only a shell can tell.
    fn commands(text: &str) -> Vec<Vec<String>> {
        let script = parse(text).unwrap_or_else(|| panic!("{text}"));
        let words = |command: &Simple| {
            let arguments = command.words.iter().filter(|word| !word.redirection);
            arguments.map(|word| word.text.clone().unwrap_or_else(|| "?".to_owned())).collect()
        };
        script.commands.iter().map(words).collect()
    }

    #[test]
    fn commands_are_found() {
        let table: &[(&str, &[&[&str]], bool)] = &[
            ("", &[], true),
            ("node x.js", &[&["node", "x.js"]], true),
            ("a 'b c'\"d e\"f\\ g '' # h\ni", &[&["a", "b cd ef g", ""], &["i"]], true),
            ("a \"\\$x \\\" \\n\"", &[&["a", "$x \" \\n"]], true),
            ("a && b; c | d\ne", &[&["a"], &["b"], &["c"], &["d"], &["e"]], true),
            ("a || b", &[&["a"], &["b"]], false),
            ("a & b", &[&["a"], &["b"]], false),
            ("(a; b)", &[&["a"], &["b"]], false),
            ("if a; then b; else c; fi", &[&["a"], &["b"], &["c"]], false),
            ("for x in 1 2; do a; done", &[&["a"]], false),
            ("! a", &[&["a"]], false),
            ("'!' a", &[&["!", "a"]], true),
            (
                "A=1 B=$C a $D \"$@\" x$(e 'f)' \")\" $(g))y `h i` ${j:-k} *.js",
                &[&["A=1", "?", "a", "?", "?", "?", "?", "?", "?"]],
                true,
            ),
            ("a >b 2>&1 < c >> 'd e' f", &[&["a", "f"]], true),
            ("a \\\n b", &[&["a", "b"]], true),
        ];
        for (text, expected, chain) in table {
            assert_eq!(commands(text), *expected, "{text}");
            assert_eq!(parse(text).map(|script| script.chain), Some(*chain), "{text}");
        }
    }

    #[test]
    fn what_is_beyond_this_grammar_is_not_taken_apart() {
        for text in ["a 'b", "a \"b", "a $(b", "a `b", "a ${b", "a <<X\nb\nX", "diff <(a) b", "a \"$(b\""] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn words_survive_quoting(words in prop::collection::vec("[^\0]*", 1..5)) {
            let words = [vec!["program".to_owned()], words].concat();
            prop_assert_eq!(split(&join(&words)), Some(words));
        }

        #[test]
        fn any_text_is_taken_apart_at_characters(text in "[ a$'\"`(){}\\\\|&;<>#=é\n]{0,40}") {
            for command in parse(&text).iter().flat_map(|script| &script.commands) {
                prop_assert!(!command.words.is_empty());
                for word in &command.words {
                    prop_assert!(text.get(word.at.clone()).is_some_and(|raw| !raw.is_empty()));
                }
            }
        }
    }
}
