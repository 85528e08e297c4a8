//! Request bodies of the subscription dialect: JSON objects, of which one response reports all errors. The header
//! `Idempotency-Key` of both dialects, too.

use domain::Malformed;
use lambda_http::http::HeaderMap;
use lambda_http::http::header::CONTENT_TYPE;
use lambda_http::{Body, Request};
use serde_json::{Map, Value};

use crate::{ErrorResponse, FieldError};

/// The greatest length of a body, in bytes.
const LIMIT: usize = 10 * 1024;

/// Reads the body as [`read_body`] does. An empty body has no fields.
pub fn read_optional_body(request: &Request) -> Result<Fields, ErrorResponse> {
    if request.body().is_empty() {
        return Ok(Fields {
            fields: Map::new(),
            errors: Vec::new(),
        });
    }
    read_body(request)
}

/// Reads the body.
///
/// # Errors
/// In this order: 413 if it is too long, 415 if its content type is not JSON, 400 if it is not a JSON object.
pub fn read_body(request: &Request) -> Result<Fields, ErrorResponse> {
    let bytes: &[u8] = match request.body() {
        Body::Empty => &[],
        Body::Text(text) => text.as_bytes(),
        Body::Binary(bytes) => bytes,
        _ => return Err(ErrorResponse::not_json()),
    };
    if bytes.len() > LIMIT {
        return Err(ErrorResponse::too_large(LIMIT));
    }
    if let Some(content_type) = request.headers().get(CONTENT_TYPE)
        && !content_type.to_str().is_ok_and(is_json)
    {
        return Err(ErrorResponse::unsupported_media_type());
    }
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(fields)) => Ok(Fields {
            fields,
            errors: Vec::new(),
        }),
        _ => Err(ErrorResponse::not_json()),
    }
}

/// Whether a content type is `application/json`, `text/json` or any `+json` (RFC 6839 section 3.1), with or without
/// parameters.
fn is_json(content_type: &str) -> bool {
    let essence = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let subtype = essence.split_once('/').map(|(_, subtype)| subtype);
    subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
}

/// Reads the header `Idempotency-Key`: 1 to 255 printable ASCII characters, quoted or bare. A key is the same in either
/// form. API Gateway joins a header that is sent twice with a comma, so a bare key must not contain one.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Box<FieldError>> {
    const NAME: &str = "Idempotency-Key";
    const MAX_LENGTH: usize = 255;
    let invalid = |what| Err(Box::new(FieldError::invalid(NAME, what)));
    let mut values = headers.get_all(NAME).iter();
    let (given, second) = (values.next(), values.next());
    let Some(given) = given else {
        return Ok(None);
    };
    let given = given.to_str().unwrap_or_default().trim();
    let quoted = given.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let joined = match quoted {
        Some(key) => key.contains('"'),
        None => given.contains(','),
    };
    if second.is_some() || joined {
        return invalid("must be given once; a key with a comma must stand in quotes");
    }
    let key = quoted.unwrap_or(given);
    let printable = key.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    match key.len() {
        0 => invalid("must be 1 to 255 printable ASCII characters"),
        _ if !printable => invalid("must be 1 to 255 printable ASCII characters"),
        1..=MAX_LENGTH => Ok(Some(key.to_owned())),
        total => Err(Box::new(FieldError::too_long(NAME, 1, MAX_LENGTH, total, key))),
    }
}

/// The fields of a body, and the errors found so far. A field that is `null` or `""` counts as absent.
#[derive(Debug)]
pub struct Fields {
    fields: Map<String, Value>,
    errors: Vec<FieldError>,
}

impl Fields {
    /// A text field. `None` if it is absent, or not a string, which is an error.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        match self.fields.get(name) {
            None | Some(Value::Null) => None,
            Some(Value::String(text)) if text.is_empty() => None,
            Some(Value::String(text)) => Some(text.clone()),
            Some(_) => {
                self.fault(FieldError::invalid(name, "must be a string"));
                None
            }
        }
    }

    /// A text field that `parse` accepts. `None` if it is absent or wrong.
    pub fn parsed<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, Malformed>) -> Option<T> {
        let given = self.text(name)?;
        self.read(name, &given, parse)
    }

    /// A text field of at most `max` characters that `parse` accepts. `None` if it is absent or wrong.
    pub fn bounded<T>(
        &mut self,
        name: &'static str,
        min: usize,
        max: usize,
        parse: impl Fn(&str) -> Result<T, Malformed>,
    ) -> Option<T> {
        let given = self.text(name)?;
        let total = given.chars().count();
        if total > max {
            self.fault(FieldError::too_long(name, min, max, total, &given));
            return None;
        }
        self.read(name, &given, parse)
    }

    /// Parses the text `given` in a field, and adds an error if `parse` rejects it.
    pub fn read<T>(
        &mut self,
        name: &'static str,
        given: &str,
        parse: impl Fn(&str) -> Result<T, Malformed>,
    ) -> Option<T> {
        parse(given)
            .map_err(|malformed| self.fault(FieldError::invalid(name, malformed.0)))
            .ok()
    }

    /// A boolean field. `None` if it is absent or wrong. `alias` is another name of the same field.
    pub fn boolean(&mut self, name: &'static str, alias: &str) -> Option<bool> {
        let mut given = None;
        for name_or_alias in [name, alias] {
            match self.fields.get(name_or_alias) {
                None | Some(Value::Null) => {}
                Some(Value::Bool(value)) if given.is_none_or(|other| other == *value) => {
                    given = Some(*value);
                }
                Some(Value::Bool(_)) => {
                    self.fault(FieldError::invalid(name, "is given twice with different values"));
                    return None;
                }
                Some(_) => {
                    self.fault(FieldError::invalid(name, "must be a boolean"));
                    return None;
                }
            }
        }
        given
    }

    /// Adds an error.
    pub fn fault(&mut self, error: FieldError) {
        self.errors.push(error);
    }

    /// Whether this field has an error.
    pub fn is_faulty(&self, field: &str) -> bool {
        self.errors.iter().any(|error| error.is_of(field))
    }

    /// Fails with all errors if there are any.
    pub fn finish(self) -> Result<(), ErrorResponse> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(ErrorResponse::invalid(self.errors))
        }
    }
}

#[cfg(test)]
mod tests {
    use lambda_http::http::HeaderValue;

    use super::*;

    #[test]
    fn an_idempotency_key_may_be_given_only_once() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("idempotency-key", HeaderValue::from_static(value));
            }
            idempotency_key(&headers).map_err(|_| ())
        };
        let key = |key: &str| Ok(Some(key.to_owned()));
        assert_eq!(read(&[]), Ok(None));
        assert_eq!(read(&["one"]), key("one"));
        assert_eq!(read(&["\"one\""]), key("one"));
        assert_eq!(read(&["\"a,b\""]), key("a,b"));
        for twice in [
            &["one", "one"][..],
            &["one,one"],
            &["one, two"],
            &["\"one\",\"one\""],
            &["\"one\", two"],
        ] {
            assert_eq!(read(twice), Err(()), "{twice:?}");
        }
        assert_eq!(read(&["a\tb"]), Err(()));
        assert_eq!(read(&[""]), Err(()));
        assert_eq!(read(&["\"\""]), Err(()));
    }

    #[test]
    fn only_json_content_types_are_accepted() {
        for (text, accepted) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/json", true),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("json", false),
            ("", false),
        ] {
            assert_eq!(is_json(text), accepted, "{text:?}");
        }
    }
}
