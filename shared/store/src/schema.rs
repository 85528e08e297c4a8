//! The table's shape. `infra/template.yaml` says the same to CloudFormation.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, StreamSpecification, StreamViewType, TimeToLiveSpecification,
};

use crate::StoreError;

/// An index: its name, its two keys, and what it carries besides.
struct Index {
    name: &'static str,
    hash: &'static str,
    range: Option<&'static str>,
    carries: &'static [&'static str],
}

/// Swaps by when they were asked, of a line, a customer, a reseller and all; then swaps and mails by when the sweeper looks; then free SIMs; then swaps by the network's name for their order. Each holds only the rows that have all of its keys.
const INDEXES: [Index; 7] = [
    Index {
        name: "byLine",
        hash: "line",
        range: Some("listed"),
        carries: &["reference", "customer", "reseller"],
    },
    Index {
        name: "byCustomer",
        hash: "customer",
        range: Some("listed"),
        carries: &["outcome", "reference"],
    },
    Index {
        name: "byReseller",
        hash: "reseller",
        range: Some("listed"),
        carries: &["outcome", "reference"],
    },
    Index {
        name: "all",
        hash: "type",
        range: Some("listed"),
        carries: &["reference"],
    },
    Index {
        name: "due",
        hash: "type",
        range: Some("dueAt"),
        carries: &[],
    },
    Index {
        name: "free",
        hash: "shelf",
        range: Some("freeFrom"),
        carries: &[],
    },
    Index {
        name: "byOrder",
        hash: "orderNumber",
        range: None,
        carries: &[],
    },
];

/// Makes the table `name`: on demand, stream of keys, TTL. For the local stack and the tests.
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
        let projection = if index.carries.is_empty() {
            Projection::builder().projection_type(ProjectionType::KeysOnly)
        } else {
            Projection::builder()
                .projection_type(ProjectionType::Include)
                .set_non_key_attributes(Some(index.carries.iter().map(|a| (*a).to_owned()).collect()))
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
