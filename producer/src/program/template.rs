//! A topic's key that each line fills in: `flight.{origin}.{destination}`.

use correio_message::{Destination, InvalidAddress, TopicKey};
use serde_json::Value;

use super::lines::{LineError, scalar};

/// A topic's key with fields in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicTemplate(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(String),
}

/// A text that is no template.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TemplateError {
    #[error("in the template “{template}” a “{{” has no “}}”: a field is written {{name}}")]
    Unclosed { template: String },
    #[error("in the template “{template}” a “}}” has no “{{”: a field is written {{name}}")]
    Unopened { template: String },
    #[error("in the template “{template}” a field has no name: write {{name}}")]
    NoName { template: String },
    #[error(transparent)]
    Key(#[from] InvalidAddress),
}

impl TopicTemplate {
    pub(crate) fn parse(template: &str) -> Result<Self, TemplateError> {
        let said = || template.to_owned();
        let (mut pieces, mut rest) = (Vec::new(), template);
        while let Some(brace) = rest.find(['{', '}']) {
            let (text, from) = rest.split_at(brace);
            let from = from.strip_prefix('{').ok_or_else(|| TemplateError::Unopened { template: said() })?;
            let end = from.find(['{', '}']).filter(|end| from[*end..].starts_with('}'));
            let end = end.ok_or_else(|| TemplateError::Unclosed { template: said() })?;
            if end == 0 {
                return Err(TemplateError::NoName { template: said() });
            }
            pieces.extend((!text.is_empty()).then(|| Piece::Text(text.to_owned())));
            pieces.push(Piece::Field(from[..end].to_owned()));
            rest = &from[end + 1..];
        }
        pieces.extend((!rest.is_empty()).then(|| Piece::Text(rest.to_owned())));
        let template = Self(pieces);
        // With the shortest words that there can be, it has to be a key already.
        TopicKey::new(template.with(|_| Ok::<_, TemplateError>("x".to_owned()))?)?;
        Ok(template)
    }

    /// The destination, if every line has the same.
    pub(crate) fn constant(&self) -> Option<Destination> {
        let key = self.with(|_| Err(())).ok()?;
        Destination::topic(key).ok()
    }

    /// Some field of it, to be named where a line has none.
    pub(crate) fn a_field(&self) -> Option<&str> {
        self.0.iter().find_map(|piece| match piece {
            Piece::Field(field) => Some(field.as_str()),
            Piece::Text(_) => None,
        })
    }

    /// Where the line goes whose object this is.
    pub(crate) fn fill(&self, object: &Value, line: &[u8]) -> Result<Destination, LineError> {
        let key = self.with(|field| {
            let value = scalar(object, field, line)?;
            let field = || field.to_owned();
            if value.is_empty() {
                return Err(LineError::EmptyWord { field: field() });
            }
            if value.contains('.') {
                return Err(LineError::TwoWords { field: field(), value });
            }
            Ok(value)
        })?;
        Destination::topic(key).map_err(|why| LineError::InvalidTopic { why })
    }

    fn with<E>(&self, mut value: impl FnMut(&str) -> Result<String, E>) -> Result<String, E> {
        let mut key = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => key.push_str(text),
                Piece::Field(field) => key.push_str(&value(field)?),
            }
        }
        Ok(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str, line: &str) -> Result<String, String> {
        let object = serde_json::from_str(line).unwrap();
        let filled = TopicTemplate::parse(template).unwrap().fill(&object, line.as_bytes());
        filled.map(|to| to.route().routing_key.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_field_becomes_a_word_of_the_key() {
        let line = r#"{"origin":"ATL","destination":"LAX","n":7}"#;
        assert_eq!(filled("flight.{origin}.{destination}", line).unwrap(), "flight.ATL.LAX");
        assert_eq!(filled("{n}", line).unwrap(), "7");
        assert_eq!(filled("{origin}-{destination}.late", line).unwrap(), "ATL-LAX.late");
    }

    #[test]
    fn a_value_that_is_no_word_is_refused_and_named() {
        for (value, words) in [
            (r#""A.B""#, "“A.B”"),
            ("1.5", "“1.5”"),
            (r#""""#, "empty"),
            ("null", "null"),
            (r#""*""#, "pattern"),
            (r##""#""##, "pattern"),
        ] {
            let refused = filled("x.{k}", &format!("{{\"k\":{value}}}")).unwrap_err();
            assert!(refused.contains(words), "{value}: {refused}");
        }
        assert!(filled("x.{k}", "{}").unwrap_err().contains("no field “k”"));
        let long = format!("{{\"k\":\"{}\"}}", "x".repeat(254));
        assert!(filled("x.{k}", &long).unwrap_err().contains("256 bytes"), "{:?}", filled("x.{k}", &long));
    }

    #[test]
    fn what_is_no_template_is_said_before_any_line_is_read() {
        let long = "x".repeat(256);
        for wrong in ["", "{", "}", "a.{b", "a.{}", "a.{b{c}}", "a.b}", "a.*.{b}", "#", &long] {
            assert!(TopicTemplate::parse(wrong).is_err(), "{wrong}");
        }
        assert!(TopicTemplate::parse("*{a}").is_ok(), "data may hold such words; they stand for themselves");
    }

    #[test]
    fn without_a_field_it_is_one_key_for_all_lines() {
        let constant = TopicTemplate::parse("flight.all").unwrap().constant();
        assert_eq!(constant, Destination::topic("flight.all").ok());
        assert_eq!(TopicTemplate::parse("flight.{a}").unwrap().constant(), None);
    }
}
