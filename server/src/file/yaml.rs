//! A YAML document as a tree that keeps each scalar's text and line. JSON is YAML.
//!
//! saphyr-parser gives the events: it is maintained, has no `unsafe` and one small dependency besides thiserror. A
//! serde layer would guess types from text, whereas here the flag knows its type and reads the text itself.

use saphyr_parser::Event;
use saphyr_parser::Parser;
use saphyr_parser::ScalarStyle;

/// No configuration nests deeper.
const DEPTH_MAX: usize = 16;

/// Why a text is no document that is read here.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum YamlError {
    #[error("{0}")]
    Syntax(String),
    #[error("line {line}: {what}")]
    Content { line: usize, what: &'static str },
    #[error("line {line}: the key {key:?} comes twice")]
    DuplicateKey { line: usize, key: String },
}

/// A value and where it stands.
#[derive(Debug)]
pub struct Node {
    /// From 1.
    pub line: usize,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    Null,
    /// `plain`: without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    Sequence(Vec<Node>),
    Mapping(Vec<(String, Node)>),
}

impl Node {
    /// The text of a scalar.
    pub fn as_text(&self) -> Option<&str> {
        match &self.content {
            Content::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }
}

/// Reads the one document in `text`; an empty text is `Null`.
///
/// # Errors
/// It is no YAML, has several documents, anchors, keys that are no scalars or come twice, or nests too deeply.
pub fn parse(text: &str) -> Result<Node, YamlError> {
    let mut reader = Reader { parser: Parser::new_from_str(text) };
    let mut root = None;
    loop {
        let (line, event) = reader.next()?;
        match event {
            Event::StreamStart | Event::DocumentStart(_) | Event::DocumentEnd | Event::Nothing => {}
            Event::StreamEnd => return Ok(root.unwrap_or(Node { line: 1, content: Content::Null })),
            _ if root.is_some() => return Err(YamlError::Content { line, what: "there is more than one document" }),
            event => root = Some(reader.node(line, event, 0)?),
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(usize, Event<'a>), YamlError> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((span.start.line(), event)),
            Some(Err(error)) => Err(YamlError::Syntax(error.to_string())),
            None => Ok((1, Event::StreamEnd)),
        }
    }

    fn node(&mut self, line: usize, event: Event<'a>, depth: usize) -> Result<Node, YamlError> {
        if depth > DEPTH_MAX {
            return Err(YamlError::Content { line, what: "nested too deeply" });
        }
        let content = match event {
            Event::Scalar(_, _, anchor, _) | Event::SequenceStart(anchor, _) | Event::MappingStart(anchor, _)
                if anchor != 0 =>
            {
                return Err(YamlError::Content { line, what: "anchors are not supported" });
            }
            Event::Scalar(text, ScalarStyle::Plain, _, None) if is_null(&text) => Content::Null,
            Event::Scalar(text, style, ..) => {
                Content::Scalar { text: text.into_owned(), plain: style == ScalarStyle::Plain }
            }
            Event::SequenceStart(..) => Content::Sequence(self.sequence(depth)?),
            Event::MappingStart(..) => Content::Mapping(self.mapping(depth)?),
            Event::Alias(_) => return Err(YamlError::Content { line, what: "aliases are not supported" }),
            _ => return Err(YamlError::Content { line, what: "a value is missing" }),
        };
        Ok(Node { line, content })
    }

    fn sequence(&mut self, depth: usize) -> Result<Vec<Node>, YamlError> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (_, Event::SequenceEnd) => return Ok(items),
                (line, event) => items.push(self.node(line, event, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<(String, Node)>, YamlError> {
        let mut members: Vec<(String, Node)> = Vec::new();
        loop {
            let (line, event) = self.next()?;
            let key = match event {
                Event::MappingEnd => return Ok(members),
                Event::Scalar(text, ..) => text.into_owned(),
                _ => return Err(YamlError::Content { line, what: "a key must be a single value" }),
            };
            if members.iter().any(|member| member.0 == key) {
                return Err(YamlError::DuplicateKey { line, key });
            }
            let (line, event) = self.next()?;
            members.push((key, self.node(line, event, depth + 1)?));
        }
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn text_is_kept_as_written() {
        let root = parse("a: 0x10\nb: '5'\nc:\nd: [x, \"y\"]\ne: {f: 1.50}\n").unwrap();
        let Content::Mapping(members) = root.content else { panic!() };
        assert_eq!(members.iter().map(|member| member.0.as_str()).collect::<Vec<_>>(), ["a", "b", "c", "d", "e"]);
        assert_eq!(members[0].1.as_text(), Some("0x10"));
        assert!(matches!(&members[1].1.content, Content::Scalar { text, plain: false } if text == "5"));
        assert!(matches!(members[2].1.content, Content::Null));
        assert!(matches!(&members[3].1.content, Content::Sequence(items) if items.len() == 2));
        assert!(matches!(&members[4].1.content, Content::Mapping(inner) if inner[0].1.as_text() == Some("1.50")));
        assert_eq!(members[4].1.line, 5);
    }

    #[test]
    fn an_empty_text_is_null() {
        for text in ["", "# only a comment\n", "---\n"] {
            assert!(matches!(parse(text).unwrap().content, Content::Null), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_read_is_named_with_its_line() {
        assert_eq!(error("a: 1\na: 2"), "line 2: the key \"a\" comes twice");
        assert_eq!(error("a: &x 1\nb: *x"), "line 1: anchors are not supported");
        assert_eq!(error("? [a]\n: 1"), "line 1: a key must be a single value");
        assert_eq!(error("a: 1\n---\nb: 1"), "line 3: there is more than one document");
        assert_eq!(error(&"[".repeat(100)), "line 1: nested too deeply");
        assert!(error("a: [1").contains("line"), "{}", error("a: [1"));
    }
}
