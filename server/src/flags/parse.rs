//! The command line, as Go's `flag` package reads it: one dash or two, `-x=y` or `-x y`; a boolean never takes the next
//! word; the first word that is no flag, or `--`, ends the flags.

use super::Settings;
use super::Source;
use super::ValueError;

/// What the command line asks for.
#[derive(Debug)]
pub enum Request {
    Serve(Settings),
    Help,
    Version,
}

/// Why the command line cannot be read. The words are Go's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    #[error("flag provided but not defined: -{0}")]
    Undefined(String),
    #[error("flag needs an argument: -{0}")]
    NoArgument(String),
    #[error("invalid value {text:?} for flag -{flag}: {error}")]
    Value { flag: String, text: String, error: ValueError },
    #[error("invalid boolean value {text:?} for -{flag}: {error}")]
    Bool { flag: String, text: String, error: ValueError },
    #[error("{0:?} is not a valid flag")]
    NotAFlag(String),
}

impl ParseError {
    /// 2 where Go's flag package gives up (with a hint at the usage), 1 where etcd itself does.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NotAFlag(_) => 1,
            _ => 2,
        }
    }
}

/// Reads the arguments after the program's name.
///
/// # Errors
/// The first fault from the left.
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Request, ParseError> {
    let mut arguments = arguments.into_iter();
    let mut settings = Settings::default();
    let mut rest = None;
    while let Some(argument) = arguments.next() {
        let body = match argument.strip_prefix('-') {
            None | Some("") => {
                rest = Some(argument);
                break;
            }
            Some("-") => {
                rest = arguments.next();
                break;
            }
            Some(body) => body.strip_prefix('-').unwrap_or(body),
        };
        let (name, text) = match body.split_once('=') {
            Some((name, text)) => (name, Some(text)),
            None => (body, None),
        };
        if name.is_empty() || name.starts_with('-') {
            return Err(ParseError::Syntax(argument));
        }
        if name == "h" || name == "help" {
            return Ok(Request::Help);
        }
        set(&mut settings, name, text, &mut arguments)?;
    }
    match rest {
        Some(word) => Err(ParseError::NotAFlag(word)),
        None if settings.bool("version") => Ok(Request::Version),
        None => Ok(Request::Serve(settings)),
    }
}

fn set(
    settings: &mut Settings,
    name: &str,
    text: Option<&str>,
    arguments: &mut impl Iterator<Item = String>,
) -> Result<(), ParseError> {
    let flag = super::find(name).ok_or_else(|| ParseError::Undefined(name.to_owned()))?;
    let text = match text {
        Some(text) => text.to_owned(),
        None if flag.kind.stands_alone() => "true".to_owned(),
        None => arguments.next().ok_or_else(|| ParseError::NoArgument(name.to_owned()))?,
    };
    settings.set(flag, &text, Source::CommandLine).map_err(|error| {
        let flag = name.to_owned();
        match super::find(name).map(|flag| flag.kind) {
            Some(super::Kind::Bool) => ParseError::Bool { flag, text, error },
            _ => ParseError::Value { flag, text, error },
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(line: &str) -> Result<Request, ParseError> {
        parse(line.split(' ').filter(|word| !word.is_empty()).map(str::to_owned))
    }

    fn settings(line: &str) -> Settings {
        match parse_words(line) {
            Ok(Request::Serve(settings)) => settings,
            other => panic!("{line}: {other:?}"),
        }
    }

    fn error(line: &str) -> String {
        match parse_words(line) {
            Err(error) => format!("{} {error}", error.exit_code()),
            Ok(request) => panic!("{line}: {request:?}"),
        }
    }

    #[test]
    fn one_dash_or_two_and_both_forms_of_a_value() {
        for line in ["-name a", "--name a", "-name=a", "--name=a", "--name b -name a", "--name a --"] {
            assert_eq!(settings(line).text("name"), "a", "{line}");
        }
        assert_eq!(settings("--name=a=b").text("name"), "a=b");
        assert_eq!(settings("--name -x").text("name"), "-x", "the next word is the value, whatever it looks like");
        assert_eq!(settings("--name=").text("name"), "");
        assert_eq!(settings("").text("name"), "default");
        assert!(!settings("").is_given("name"));
    }

    #[test]
    fn a_boolean_never_takes_the_next_word() {
        assert!(settings("--client-cert-auth").bool("client-cert-auth"));
        assert!(!settings("--pre-vote=false").bool("pre-vote"));
        assert!(!settings("-pre-vote=F").bool("pre-vote"));
        assert_eq!(error("--pre-vote false"), "1 \"false\" is not a valid flag");
        assert_eq!(error("--force 1"), "1 \"1\" is not a valid flag");
        assert_eq!(error("--pre-vote=no"), "2 invalid boolean value \"no\" for -pre-vote: parse error");
        assert!(settings("--v --force=x").is_given("v"));
    }

    #[test]
    fn faults_in_gos_words() {
        let table = [
            ("--nope", "2 flag provided but not defined: -nope"),
            ("-nope=1", "2 flag provided but not defined: -nope"),
            ("---name", "2 bad flag syntax: ---name"),
            ("--=x", "2 bad flag syntax: --=x"),
            ("-=x", "2 bad flag syntax: -=x"),
            ("--name", "2 flag needs an argument: -name"),
            ("--snapshot-count=x", "2 invalid value \"x\" for flag -snapshot-count: parse error"),
            ("--snapshot-count -1", "2 invalid value \"-1\" for flag -snapshot-count: parse error"),
            (
                "--max-concurrent-streams 4294967296",
                "2 invalid value \"4294967296\" for flag -max-concurrent-streams: value out of range",
            ),
            ("--backend-batch-interval 5", "2 invalid value \"5\" for flag -backend-batch-interval: parse error"),
            (
                "--listen-client-urls x",
                "2 invalid value \"x\" for flag -listen-client-urls: URL scheme must be http, https, unix, or unixs: x",
            ),
            (
                "--feature-gates=Nope=true",
                "2 invalid value \"Nope=true\" for flag -feature-gates: unrecognized feature gate: Nope",
            ),
            (
                "--initial-cluster-state=old",
                "2 invalid value \"old\" for flag -initial-cluster-state: invalid value \"old\"",
            ),
            ("serve", "1 \"serve\" is not a valid flag"),
            ("- --name x", "1 \"-\" is not a valid flag"),
            ("-- --name", "1 \"--name\" is not a valid flag"),
            ("--version x", "1 \"x\" is not a valid flag"),
        ];
        for (line, expected) in table {
            assert_eq!(error(line), expected, "{line}");
        }
    }

    #[test]
    fn help_and_version() {
        for line in ["-h", "--help", "--name a -help", "-h --nope"] {
            assert!(matches!(parse_words(line), Ok(Request::Help)), "{line}");
        }
        assert!(matches!(parse_words("--version"), Ok(Request::Version)));
        assert!(matches!(parse_words("--version=false"), Ok(Request::Serve(_))));
        assert_eq!(error("--nope -h"), "2 flag provided but not defined: -nope", "the first fault counts");
    }

    #[test]
    fn lists_and_urls_are_sorted_and_each_once() {
        let urls = settings("--listen-client-urls=http://b:1,http://a:1,http://b:1").urls("listen-client-urls");
        assert_eq!(urls.iter().map(ToString::to_string).collect::<Vec<_>>(), ["http://a:1", "http://b:1"]);
        assert_eq!(settings("--log-outputs=stdout,a,stdout").list("log-outputs"), ["a", "stdout"]);
        assert_eq!(settings("--cipher-suites=B,A").list("cipher-suites"), ["B", "A"]);
        assert!(!settings("--listen-client-urls=").is_given("listen-client-urls"), "empty is not given, as in etcd");
    }
}
