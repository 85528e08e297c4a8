//! The Lambda entry point for the callbacks of the peers. The handler is in `lib.rs`.

use std::convert::Infallible;

use aws::{Service, ServiceClient};
use aws_sdk_dynamodb::Client;
use edge::{ClockAndRng, FatalError, Settings, start_logging};
use lambda_http::{Request, run, service_fn};
use network_events::NetworkEvents;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), FatalError> {
    let settings = Settings::from_environment();
    start_logging(&settings);
    let aws = aws::sdk_config()?;
    let store = settings.store(Client::new(&aws), ServiceClient::new(&aws, Service::Kms))?;
    let function = NetworkEvents::new(store, ClockAndRng::real(), &settings)?;
    run(service_fn(async |request: Request| {
        Ok::<_, Infallible>(function.handle(request).await)
    }))
    .await?;
    Ok(())
}
