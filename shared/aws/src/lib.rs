//! AWS: the configuration that all clients share (`config`), and a small client for the services of which we use one or
//! two calls (`service`). DynamoDB and SES have the clients of their SDKs. The HTTPS connector is that of the peers, too
//! (`https`).

mod config;
mod https;
mod service;

pub use aws_smithy_types::{base64, error::metadata::ProvideErrorMetadata};
pub use aws_types::SdkConfig;
pub use config::{http_client, sdk_config, timeouts};
pub use https::{HttpsConnector, tls};
pub use service::{CallError, Service, ServiceClient};
