//! Request bodies of the subscription dialect: JSON objects, of which one response reports all errors. The header
//! `Idempotency-Key` of both dialects, too.

use std::fmt;

use domain::Malformed;
use lambda_http::http::HeaderMap;
use lambda_http::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use lambda_http::{Body, Request};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use crate::{ErrorResponse, FieldError};

/// The greatest length of a body, in bytes.
const LIMIT: usize = 10 * 1024;

/// Reads the body as [`read_body`] does. An empty body has no fields.
pub fn read_optional_body(request: &Request) -> Result<Fields, ErrorResponse> {
    if request.body().is_empty() {
        return Ok(Fields::default());
    }
    read_body(request)
}

/// Reads the body.
///
/// # Errors
/// In this order: 413 if it is too long, 415 if it is compressed or its content type is not JSON, 400 if it is not a JSON
/// object.
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
    let headers = request.headers();
    if headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .any(|coding| !coding.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"))
    {
        return Err(ErrorResponse::compressed());
    }
    if !headers
        .get_all(CONTENT_TYPE)
        .iter()
        .all(|content_type| content_type.to_str().is_ok_and(is_json))
    {
        return Err(ErrorResponse::unsupported_media_type());
    }
    // RFC 8259 section 8.1 allows a reader to ignore a byte order mark, which clients on Windows write.
    let json = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
    serde_json::from_slice(json).map_err(|_| ErrorResponse::not_json())
}

/// Whether a content type is `application/json`, `text/json` or any `+json` (RFC 6839 section 3.1), with or without
/// parameters. API Gateway joins a header that is sent twice with a comma; both must be JSON then.
fn is_json(content_types: &str) -> bool {
    content_types.split(',').all(|content_type| {
        let essence = content_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        let subtype = essence.split_once('/').map(|(_, subtype)| subtype);
        subtype.is_some_and(|subtype| subtype == "json" || subtype.ends_with("+json"))
    })
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

/// The fields of a body, and the errors found so far. The letter case of names is ignored. A field that is `null` or `""`
/// counts as absent.
#[derive(Debug, Default)]
pub struct Fields {
    /// As they were sent, so a name may occur more than once.
    fields: Vec<(String, Value)>,
    errors: Vec<FieldError>,
}

/// Reads an object. Its names need not be unique.
impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;

        impl<'de> Visitor<'de> for Object {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Fields, A::Error> {
                let mut read = Fields::default();
                while let Some(field) = object.next_entry()? {
                    read.fields.push(field);
                }
                Ok(read)
            }
        }

        deserializer.deserialize_map(Object)
    }
}

impl Fields {
    /// The value of a field. `None` if it is absent, or given twice, which is an error.
    fn value(&mut self, name: &'static str) -> Option<Value> {
        let mut given = self.fields.iter().filter(|(given, _)| given.eq_ignore_ascii_case(name));
        let (first, second) = (given.next(), given.next());
        if second.is_some() {
            self.fault(FieldError::invalid(name, "must be given once"));
            return None;
        }
        match first {
            None | Some((_, Value::Null)) => None,
            Some((_, Value::String(text))) if text.is_empty() => None,
            Some((_, value)) => Some(value.clone()),
        }
    }

    /// A text field. `None` if it is absent, or not a string, which is an error.
    pub fn text(&mut self, name: &'static str) -> Option<String> {
        match self.value(name)? {
            Value::String(text) => Some(text),
            _ => {
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

    /// A boolean field: `true`, `"true"` in any letter case, `1` or `"1"`, and likewise for false. `None` if it is absent
    /// or wrong.
    pub fn boolean(&mut self, name: &'static str) -> Option<bool> {
        let given = self.value(name)?;
        let text = match &given {
            Value::String(text) => text.to_ascii_lowercase(),
            other => other.to_string(),
        };
        match text.as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => {
                self.fault(FieldError::invalid(name, "must be true or false"));
                None
            }
        }
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
        // A quote that does not enclose the key is part of it.
        for bare in ["a\"b", "\"a", "a\"", "\""] {
            assert_eq!(read(&[bare]), key(bare));
        }
        assert_eq!(read(&["\"a\"b\""]), Err(()));
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

    fn fields(body: &str) -> Fields {
        read_body(&Request::new(Body::from(body))).unwrap()
    }

    #[test]
    fn a_field_is_read_in_any_letter_case_but_once() {
        for (body, text, fault) in [
            (r#"{"email": "a"}"#, Some("a"), false),
            (r#"{"EMAIL": "a", "other": 1, "Other": 2}"#, Some("a"), false),
            (r#"{"email": null}"#, None, false),
            (r#"{"email": ""}"#, None, false),
            (r#"{"email": 1}"#, None, true),
            (r#"{"email": "a", "email": "a"}"#, None, true),
            (r#"{"email": null, "Email": "a"}"#, None, true),
            ("\u{feff}{\"email\": \"a\"}", Some("a"), false),
        ] {
            let mut fields = fields(body);
            assert_eq!(fields.text("email").as_deref(), text, "{body}");
            assert_eq!(fields.is_faulty("email"), fault, "{body}");
        }
    }

    #[test]
    fn a_boolean_is_read_as_clients_write_it() {
        for (given, value, fault) in [
            ("true", Some(true), false),
            ("\"true\"", Some(true), false),
            ("\"TRUE\"", Some(true), false),
            ("1", Some(true), false),
            ("\"1\"", Some(true), false),
            ("false", Some(false), false),
            ("\"False\"", Some(false), false),
            ("0", Some(false), false),
            ("\"\"", None, false),
            ("null", None, false),
            ("2", None, true),
            ("\"yes\"", None, true),
            ("[]", None, true),
        ] {
            let mut fields = fields(&format!("{{\"ESIM\": {given}}}"));
            assert_eq!(fields.boolean("eSim"), value, "{given}");
            assert_eq!(fields.is_faulty("eSim"), fault, "{given}");
        }
    }

    #[test]
    fn only_json_content_types_are_accepted() {
        for (text, accepted) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/problem+json", true),
            ("text/json", true),
            ("application/json, application/json; charset=utf-8", true),
            ("application/json,text/plain", false),
            ("application/json,", false),
            ("text/plain", false),
            ("application/x-www-form-urlencoded", false),
            ("json", false),
            ("", false),
        ] {
            assert_eq!(is_json(text), accepted, "{text:?}");
        }
    }
}
