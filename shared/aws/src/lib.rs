//! AWS: the configuration that all clients share (`config`), and a small client for the services of which we use one or
//! two calls (`service`). DynamoDB and SES have the clients of their SDKs.

mod config;
mod service;

pub use aws_smithy_types::{base64, error::metadata::ProvideErrorMetadata};
pub use aws_types::SdkConfig;
pub use config::{sdk_config, timeouts};
pub use service::{CallError, Service, ServiceClient};
