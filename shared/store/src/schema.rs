//! The definition of the table and its indexes, for stacks that create it themselves. `infra/table.yaml` contains
//! the same definition for CloudFormation.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, StreamSpecification, StreamViewType, TimeToLiveSpecification,
};

use crate::StoreError;

/// An index: its name, its keys, and the further attributes that it contains.
struct Index {
    name: &'static str,
    hash: &'static str,
    range: Option<&'static str>,
    includes: &'static [&'static str],
}

/// The first four list swaps by the time of their requests: those of a line, a customer and a reseller, and all. `due`
/// has the swaps and mails that are to be woken, `free` the free SIMs of each pool, and `byOrder` the swaps by the
/// network's number for their order. An index contains only rows that have all of its keys.
const INDEXES: [Index; 7] = [
    Index {
        name: "byLine",
        hash: "line",
        range: Some("listed"),
        includes: &["reference", "customer", "reseller"],
    },
    Index {
        name: "byCustomer",
        hash: "customer",
        range: Some("listed"),
        includes: &["outcome", "reference"],
    },
    Index {
        name: "byReseller",
        hash: "reseller",
        range: Some("listed"),
        includes: &["outcome", "reference"],
    },
    Index {
        name: "all",
        hash: "type",
        range: Some("listed"),
        includes: &["reference"],
    },
    Index {
        name: "due",
        hash: "type",
        range: Some("dueAt"),
        includes: &[],
    },
    Index {
        name: "free",
        hash: "shelf",
        range: Some("freeFrom"),
        includes: &[],
    },
    Index {
        name: "byOrder",
        hash: "orderNumber",
        range: None,
        includes: &[],
    },
];

/// Creates the table `name`, billed on demand, with a stream of keys and a time to live. For the local stack and the
/// tests.
pub async fn create_table(dynamodb: &Client, name: &str) -> Result<(), StoreError> {
    let mut attributes = vec!["pk", "sk"];
    for index in &INDEXES {
        attributes.push(index.hash);
        attributes.extend(index.range);
    }
    attributes.sort_unstable();
    attributes.dedup();
    let mut request = dynamodb
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(keys("pk", Some("sk"))))
        .stream_specification(
            StreamSpecification::builder()
                .stream_enabled(true)
                .stream_view_type(StreamViewType::KeysOnly)
                .build()
                .expect("stream_enabled is given"),
        );
    for attribute in attributes {
        request = request.attribute_definitions(
            AttributeDefinition::builder()
                .attribute_name(attribute)
                .attribute_type(ScalarAttributeType::S)
                .build()
                .expect("name and type are given"),
        );
    }
    for index in &INDEXES {
        let projection = if index.includes.is_empty() {
            Projection::builder().projection_type(ProjectionType::KeysOnly)
        } else {
            Projection::builder()
                .projection_type(ProjectionType::Include)
                .set_non_key_attributes(Some(index.includes.iter().map(|a| (*a).to_owned()).collect()))
        };
        request = request.global_secondary_indexes(
            GlobalSecondaryIndex::builder()
                .index_name(index.name)
                .set_key_schema(Some(keys(index.hash, index.range)))
                .projection(projection.build())
                .build()
                .expect("name and keys are given"),
        );
    }
    request.send().await?;
    dynamodb
        .update_time_to_live()
        .table_name(name)
        .time_to_live_specification(
            TimeToLiveSpecification::builder()
                .enabled(true)
                .attribute_name("expires")
                .build()
                .expect("both are given"),
        )
        .send()
        .await?;
    Ok(())
}

fn keys(hash: &str, range: Option<&str>) -> Vec<KeySchemaElement> {
    [(hash, KeyType::Hash)]
        .into_iter()
        .chain(range.map(|range| (range, KeyType::Range)))
        .map(|(name, kind)| {
            KeySchemaElement::builder()
                .attribute_name(name)
                .key_type(kind)
                .build()
                .expect("name and kind are given")
        })
        .collect()
}
