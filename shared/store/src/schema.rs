//! The definition of the table and its indexes, for stacks that create it themselves. `infra/table.yaml` contains
//! the same definition for CloudFormation.

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, CreateGlobalSecondaryIndexAction, DeleteGlobalSecondaryIndexAction,
    GlobalSecondaryIndex, GlobalSecondaryIndexUpdate, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType, StreamSpecification, StreamViewType, TimeToLiveSpecification,
};

use crate::{StoreError, keys};

/// An index: its name, its keys, and the further attributes that it contains.
pub(crate) struct Index {
    pub(crate) name: &'static str,
    hash: &'static str,
    range: Option<&'static str>,
    includes: &'static [&'static str],
}

/// The first four list swaps by their ids, which begin with the time of the request: those of a line, a customer and a
/// reseller, and all. `due1` has the swaps and mails that are to be woken, `free1` the free SIMs of each pool, and
/// `byOrder1` the swaps by the network's number for their order. An index contains only rows that have all of its keys.
///
/// The number in a name is that of the index's definition, because neither keys nor projection of an index can change.
pub(crate) const INDEXES: [Index; 7] = [
    Index {
        name: "byLine1",
        hash: "line",
        range: Some(keys::SWAP_ID),
        includes: &["reference", "customer", "reseller"],
    },
    Index {
        name: "byCustomer1",
        hash: "customer",
        range: Some(keys::SWAP_ID),
        includes: &["reference"],
    },
    Index {
        name: "byReseller1",
        hash: keys::RESELLER_SHARD,
        range: Some(keys::SWAP_ID),
        includes: &["outcome", "reference"],
    },
    Index {
        name: "all1",
        hash: keys::SHARD,
        range: Some(keys::SWAP_ID),
        includes: &["reference"],
    },
    Index {
        name: "due1",
        hash: keys::SHARD,
        range: Some("dueAt"),
        includes: &[],
    },
    Index {
        name: "free1",
        hash: "shelf",
        range: Some("freeFrom"),
        includes: &[],
    },
    Index {
        name: "byOrder1",
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
        attributes.extend(index.keys());
    }
    attributes.sort_unstable();
    attributes.dedup();
    let mut request = dynamodb
        .create_table()
        .table_name(name)
        .billing_mode(BillingMode::PayPerRequest)
        .set_key_schema(Some(key_schema("pk", Some("sk"))))
        .stream_specification(
            StreamSpecification::builder()
                .stream_enabled(true)
                .stream_view_type(StreamViewType::KeysOnly)
                .build()
                .expect("stream_enabled is given"),
        );
    for attribute in attributes {
        request = request.attribute_definitions(string_attribute(attribute));
    }
    for index in &INDEXES {
        request = request.global_secondary_indexes(
            GlobalSecondaryIndex::builder()
                .index_name(index.name)
                .set_key_schema(Some(key_schema(index.hash, index.range)))
                .projection(index.projection())
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

/// Has DynamoDB add an index to a table, and fill it.
pub(crate) async fn add_index(dynamodb: &Client, table: &str, index: &Index) -> Result<(), StoreError> {
    let create = CreateGlobalSecondaryIndexAction::builder()
        .index_name(index.name)
        .set_key_schema(Some(key_schema(index.hash, index.range)))
        .projection(index.projection())
        .build()
        .expect("name and keys are given");
    let attributes = ["pk", "sk"].into_iter().chain(index.keys());
    dynamodb
        .update_table()
        .table_name(table)
        .set_attribute_definitions(Some(attributes.map(string_attribute).collect()))
        .global_secondary_index_updates(GlobalSecondaryIndexUpdate::builder().create(create).build())
        .send()
        .await?;
    Ok(())
}

/// Has DynamoDB delete an index of a table.
pub(crate) async fn delete_index(dynamodb: &Client, table: &str, name: &str) -> Result<(), StoreError> {
    let delete = DeleteGlobalSecondaryIndexAction::builder().index_name(name).build();
    let delete = delete.expect("the name is given");
    dynamodb
        .update_table()
        .table_name(table)
        .global_secondary_index_updates(GlobalSecondaryIndexUpdate::builder().delete(delete).build())
        .send()
        .await?;
    Ok(())
}

impl Index {
    fn keys(&self) -> impl Iterator<Item = &'static str> + use<> {
        [self.hash].into_iter().chain(self.range)
    }

    fn projection(&self) -> Projection {
        if self.includes.is_empty() {
            return Projection::builder().projection_type(ProjectionType::KeysOnly).build();
        }
        let includes = self.includes.iter().map(|name| (*name).to_owned()).collect();
        Projection::builder()
            .projection_type(ProjectionType::Include)
            .set_non_key_attributes(Some(includes))
            .build()
    }
}

fn string_attribute(name: &str) -> AttributeDefinition {
    AttributeDefinition::builder()
        .attribute_name(name)
        .attribute_type(ScalarAttributeType::S)
        .build()
        .expect("name and type are given")
}

fn key_schema(hash: &str, range: Option<&str>) -> Vec<KeySchemaElement> {
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
