//! Event filters of an event source mapping, which select the change records for a function. Delivery is in
//! `event_source.rs`.

use std::collections::BTreeMap;

use serde_json::Value;

/// One `Pattern` of the `FilterCriteria` of a mapping. A record matches if all fields match; a field matches if one of
/// its values does.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter(BTreeMap<String, Rule>);

#[derive(Debug, Clone, PartialEq)]
enum Rule {
    Nested(Filter),
    OneOf(Vec<Leaf>),
}

#[derive(Debug, Clone, PartialEq)]
enum Leaf {
    Equal(Value),
    Prefix(String),
}

impl Filter {
    /// Parses a pattern of nested objects whose leaves are arrays of literals and `{"prefix": "…"}`.
    ///
    /// # Errors
    /// When the pattern contains another rule of Lambda: if it were ignored, records would be lost.
    pub fn parse(pattern: &Value) -> Result<Self, String> {
        let fields = pattern
            .as_object()
            .filter(|fields| !fields.is_empty())
            .ok_or_else(|| format!("a filter pattern must be an object with fields, not {pattern}"))?;
        let rules = fields.iter().map(|(name, rule)| {
            let rule = match rule.as_array() {
                None => Rule::Nested(Self::parse(rule)?),
                Some(leaves) => Rule::OneOf(leaves.iter().map(leaf).collect::<Result<_, _>>()?),
            };
            Ok((name.clone(), rule))
        });
        rules.collect::<Result<_, _>>().map(Self)
    }

    /// Whether the record matches.
    pub fn matches(&self, record: &Value) -> bool {
        self.0.iter().all(|(name, rule)| match (rule, record.get(name)) {
            (_, None) => false,
            (Rule::Nested(filter), Some(value)) => filter.matches(value),
            (Rule::OneOf(leaves), Some(value)) => leaves.iter().any(|leaf| match leaf {
                Leaf::Equal(expected) => expected == value,
                Leaf::Prefix(prefix) => value.as_str().is_some_and(|v| v.starts_with(prefix)),
            }),
        })
    }
}

fn leaf(leaf: &Value) -> Result<Leaf, String> {
    match leaf {
        Value::Array(_) => Err(format!("a list is not supported as a filter value: {leaf}")),
        Value::Object(rule) => match (rule.get("prefix"), rule.len()) {
            (Some(Value::String(prefix)), 1) => Ok(Leaf::Prefix(prefix.clone())),
            _ => Err(format!("the only supported filter rule is prefix: {leaf}")),
        },
        literal => Ok(Leaf::Equal(literal.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn records_match_by_equality_and_prefix() {
        let record = json!({"eventName": "MODIFY", "dynamodb": {"Keys": {"pk": {"S": "A#1"}, "sk": {"S": "A"}}, "SizeBytes": 7}});
        for (pattern, matches) in [
            (json!({"eventName": ["INSERT", "MODIFY"]}), true),
            (json!({"eventName": ["INSERT"]}), false),
            (json!({"eventName": []}), false),
            (json!({"dynamodb": {"Keys": {"pk": {"S": [{"prefix": "A#"}]}}}}), true),
            (
                json!({"dynamodb": {"Keys": {"pk": {"S": [{"prefix": "B#"}, "A#1"]}}}}),
                true,
            ),
            (json!({"dynamodb": {"Keys": {"pk": {"S": [{"prefix": "B#"}]}}}}), false),
            (
                json!({"dynamodb": {"Keys": {"pk": {"S": [{"prefix": "A#"}]}, "sk": {"S": ["B"]}}}}),
                false,
            ),
            (json!({"dynamodb": {"Keys": {"pk": {"N": [{"prefix": ""}]}}}}), false),
            (json!({"dynamodb": {"SizeBytes": [7]}}), true),
            (json!({"dynamodb": {"SizeBytes": [{"prefix": "7"}]}}), false),
            (json!({"dynamodb": ["MODIFY"]}), false),
            (json!({"eventName": {"deeper": ["MODIFY"]}}), false),
        ] {
            assert_eq!(Filter::parse(&pattern).unwrap().matches(&record), matches, "{pattern}");
        }
    }

    #[test]
    fn unsupported_patterns_are_rejected() {
        for pattern in [
            json!({}),
            json!("MODIFY"),
            json!({"eventName": "MODIFY"}),
            json!({"eventName": {}}),
            json!({"eventName": [{"anything-but": ["REMOVE"]}]}),
            json!({"eventName": [{"prefix": 1}]}),
            json!({"eventName": [["MODIFY"]]}),
        ] {
            assert!(Filter::parse(&pattern).is_err(), "{pattern}");
        }
    }
}
