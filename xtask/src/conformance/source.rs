//! Finds the tests in Rust source, the comments attached to them, and whether they assert anything.

use std::collections::BTreeSet;

use super::lexer::{Kind, Token, tokens};

/// A function with `#[test]`, `#[tokio::test]` or the like, inside `proptest!` too.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TestFunction {
    /// Inline modules around it, and its name.
    pub(super) path: Vec<String>,
    pub(super) line: usize,
    /// The comments directly above it, doc comments or not.
    pub(super) comments: String,
    pub(super) ignored: bool,
    pub(super) asserts: bool,
}

/// The test functions of one file.
pub(super) fn test_functions(source: &str) -> Vec<TestFunction> {
    let tokens = tokens(source);
    let functions = functions(&tokens);
    let asserting = asserting_helpers(&tokens, &functions);
    functions
        .into_iter()
        .filter(|function| function.attributes.iter().any(|attribute| is_test(attribute)))
        .map(|function| {
            let should_panic = function.attributes.iter().any(|attribute| attribute.first() == Some(&"should_panic"));
            TestFunction {
                line: function.line,
                comments: function.comments.join("\n"),
                ignored: function.attributes.iter().any(|attribute| attribute.contains(&"ignore")),
                asserts: should_panic || asserts(&tokens[function.body.clone()], &asserting),
                path: function.path,
            }
        })
        .collect()
}

struct Function<'a> {
    path: Vec<String>,
    line: usize,
    comments: Vec<&'a str>,
    /// The words of each attribute.
    attributes: Vec<Vec<&'a str>>,
    body: std::ops::Range<usize>,
}

/// `#[test]`, `#[tokio::test(..)]`, `#[test_log::test]`.
fn is_test(attribute: &[&str]) -> bool {
    match attribute {
        ["test"] => true,
        [_, "test", ..] => attribute[0] != "cfg" && attribute[0] != "cfg_attr",
        _ => false,
    }
}

/// Words that may stand between an attribute and `fn`.
const QUALIFIERS: [&str; 7] = ["pub", "crate", "super", "async", "unsafe", "const", "extern"];

fn functions<'a>(tokens: &[Token<'a>]) -> Vec<Function<'a>> {
    let mut functions = Vec::new();
    // One entry for each open brace: the module's name, where a module opened it.
    let mut scopes: Vec<Option<&str>> = Vec::new();
    let mut comments: Vec<&str> = Vec::new();
    let mut attributes: Vec<Vec<&str>> = Vec::new();
    let (mut comment_end, mut at) = (0, 0);
    while at < tokens.len() {
        let token = tokens[at];
        match token.kind {
            Kind::Comment(text) => {
                if token.line > comment_end + 1 && attributes.is_empty() {
                    comments.clear();
                }
                comment_end = token.line + text.matches('\n').count();
                comments.push(text);
            }
            Kind::Punctuation('#') if next_is(tokens, at + 1, '[') => {
                let end = matching(tokens, at + 1);
                let words = tokens[at + 1..end].iter().filter_map(|token| match token.kind {
                    Kind::Word(word) => Some(word),
                    _ => None,
                });
                attributes.push(words.collect());
                at = end;
            }
            Kind::Word("mod") => {
                if let (Some(Kind::Word(name)), true) = (kind(tokens, at + 1), next_is(tokens, at + 2, '{')) {
                    scopes.push(Some(name));
                    at += 2;
                }
                comments.clear();
                attributes.clear();
            }
            Kind::Word("fn") => {
                if let Some(Kind::Word(name)) = kind(tokens, at + 1)
                    && let Some(open) = body_start(tokens, at + 2)
                {
                    let end = matching(tokens, open);
                    let path = scopes.iter().flatten().copied().chain([name]).map(str::to_owned).collect();
                    functions.push(Function {
                        path,
                        line: token.line,
                        comments: std::mem::take(&mut comments),
                        attributes: std::mem::take(&mut attributes),
                        body: open..end,
                    });
                    at = end;
                }
                comments.clear();
                attributes.clear();
            }
            Kind::Word(word) if QUALIFIERS.contains(&word) => {}
            // `pub(crate)`, `extern "C"`
            Kind::Literal | Kind::Punctuation('(' | ')') => {}
            kind => {
                match kind {
                    Kind::Punctuation('{') => scopes.push(None),
                    Kind::Punctuation('}') => drop(scopes.pop()),
                    _ => {}
                }
                comments.clear();
                attributes.clear();
            }
        }
        at += 1;
    }
    functions
}

fn kind<'a>(tokens: &[Token<'a>], at: usize) -> Option<Kind<'a>> {
    tokens.get(at).map(|token| token.kind)
}

fn next_is(tokens: &[Token<'_>], at: usize, wanted: char) -> bool {
    kind(tokens, at) == Some(Kind::Punctuation(wanted))
}

/// Where the bracket that opens at `open` is closed, or the end.
fn matching(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Punctuation('(' | '[' | '{') => depth += 1,
            Kind::Punctuation(')' | ']' | '}') => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// The brace that opens a function's body; `None` for a declaration.
fn body_start(tokens: &[Token<'_>], mut at: usize) -> Option<usize> {
    while at < tokens.len() {
        match tokens[at].kind {
            Kind::Punctuation('{') => return Some(at),
            Kind::Punctuation(';') => return None,
            Kind::Punctuation('(' | '[') => at = matching(tokens, at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// Functions of this file that assert something themselves or through each other: calling one is an assertion.
fn asserting_helpers<'a>(tokens: &[Token<'a>], functions: &[Function<'a>]) -> BTreeSet<String> {
    let mut asserting = BTreeSet::new();
    loop {
        let before = asserting.len();
        for function in functions.iter().filter(|function| !function.attributes.iter().any(|words| is_test(words))) {
            if asserts(&tokens[function.body.clone()], &asserting) {
                asserting.extend(function.path.last().cloned());
            }
        }
        if asserting.len() == before {
            return asserting;
        }
    }
}

/// Names of functions elsewhere that fail a test when what they say does not hold.
const ASSERTING_PREFIXES: [&str; 4] = ["assert_", "expect_", "wait_for", "wait_until"];

/// Whether the body has an assertion about something: unwrapping on the way to it is none, nor is `assert!(true)`.
fn asserts(body: &[Token<'_>], helpers: &BTreeSet<String>) -> bool {
    (0..body.len()).any(|at| {
        let Kind::Word(word) = body[at].kind else { return false };
        if next_is(body, at + 1, '!') {
            let of_a_constant = matches!(kind(body, at + 3), Some(Kind::Word("true" | "false")))
                && matches!(kind(body, at + 4), Some(Kind::Punctuation(')' | ',')));
            let asserting = word.contains("assert") && !word.starts_with("debug_");
            return (asserting || word == "ensure") && !of_a_constant || word == "panic";
        }
        let called = next_is(body, at + 1, '(') || next_is(body, at + 1, ':') && next_is(body, at + 2, ':');
        let is_method = at > 0 && next_is(body, at - 1, '.');
        called
            && (ASSERTING_PREFIXES.iter().any(|prefix| word.starts_with(prefix))
                || word == "unwrap_err"
                || helpers.contains(word) && !(is_method && word == "expect"))
    })
}

#[cfg(test)]
mod tests {
    use super::{TestFunction, test_functions};

    fn only(source: &str) -> TestFunction {
        let mut found = test_functions(source);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn takes_the_comments_right_above_a_test() {
        let test = only("// far\n\n/// GW-6: near\n// T-5\n#[test]\nfn a() { assert_eq!(1, one()); }");
        assert_eq!(test.comments, "/// GW-6: near\n// T-5");
        assert_eq!((test.line, test.asserts, test.ignored), (6, true, false));
    }

    #[test]
    fn takes_comments_between_attributes() {
        let test = only("#[tokio::test]\n/// GW-1\n#[ignore = \"slow\"]\npub(crate) async fn a() { assert!(x) }");
        assert_eq!(test.comments, "/// GW-1");
        assert!(test.ignored);
    }

    #[test]
    fn comments_of_something_else_do_not_count() {
        assert_eq!(only("/// GW-6\nstruct S;\n#[test]\nfn a() {}").comments, "");
        assert_eq!(only("/// GW-6\nfn helper() {}\n#[test]\nfn a() {}").comments, "");
    }

    #[test]
    fn knows_the_modules_around_a_test() {
        let source = "mod a { use b::{c}; mod tests { #[test] fn d() {} } } fn e() {}";
        assert_eq!(only(source).path, ["a", "tests", "d"]);
        assert_eq!(only("mod a;\n#[test] fn d() {}").path, ["d"]);
    }

    #[test]
    fn sees_tests_inside_proptest() {
        let test = only("mod t { proptest! { /// T-5\n#[test] fn p(x in 0..4_u8) { prop_assert!(x < 4); } } }");
        assert_eq!(test.path, ["t", "p"]);
        assert!(test.asserts && test.comments.contains("T-5"));
    }

    #[test]
    fn a_function_that_is_no_test_is_none() {
        assert!(
            test_functions("#[cfg(test)] fn a() { assert!(x) } /// GW-1\n#[cfg(all(test, x))] fn b() {}").is_empty()
        );
    }

    #[test]
    fn unwrapping_is_no_assertion() {
        for body in ["a().unwrap();", "a().expect(\"x\");", "let _ = a()?;", "assert!(true);", "// assert!(x)", ""] {
            assert!(!only(&format!("#[test] fn t() {{ {body} }}")).asserts, "{body}");
        }
    }

    #[test]
    fn asserting_comes_in_several_forms() {
        for body in [
            "assert!(x);",
            "prop_assert_eq!(a, b);",
            "ensure!(x, \"y\");",
            "let A(x) = y else { panic!(\"z\") };",
            "lab.wait_until(\"x\", || y)?;",
            "wait_for::<u8>(x)?;",
        ] {
            assert!(only(&format!("#[test] fn t() {{ {body} }}")).asserts, "{body}");
        }
        assert!(only("#[test] #[should_panic] fn t() { a() }").asserts);
    }

    #[test]
    fn a_helper_of_the_file_asserts_for_its_callers() {
        let helpers = "fn outer() { inner(); } fn inner() { assert!(x); } fn idle() {}";
        assert!(only(&format!("{helpers} #[test] fn t() {{ outer() }}")).asserts);
        assert!(!only(&format!("{helpers} #[test] fn t() {{ idle() }}")).asserts);
    }
}
