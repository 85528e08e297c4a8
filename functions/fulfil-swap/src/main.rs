//! The Lambda entry point for the change records of swaps. The handler is in `lib.rs`.

use aws::{Service, ServiceClient};
use aws_lambda_events::event::dynamodb::Event;
use aws_sdk_dynamodb::Client;
use edge::{ClockAndRng, FatalError, Settings, start_logging};
use fulfil_swap::{FulfilSwap, Peers};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), FatalError> {
    let settings = Settings::from_environment();
    start_logging(&settings);
    let aws = aws::sdk_config()?;
    let store = settings.store(Client::new(&aws), ServiceClient::new(&aws, Service::Kms))?;
    let secrets = ServiceClient::new(&aws, Service::SecretsManager);
    let peers = Peers::read(secrets, &settings).await?;
    let function = FulfilSwap::new(store, peers, ClockAndRng::real(), &settings)?;
    run(service_fn(async |event: LambdaEvent<Event>| {
        Ok::<_, Error>(function.handle(event).await)
    }))
    .await?;
    Ok(())
}
