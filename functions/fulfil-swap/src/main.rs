//! The Lambda entry point for the change records of swaps. The handler is in `lib.rs`.

use aws::{Service, ServiceClient};
use aws_lambda_events::event::dynamodb::Event;
use edge::{ClockAndRng, FatalError, Settings, start_logging};
use fulfil_swap::{FulfilSwap, Peers};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use store::Store;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), FatalError> {
    let settings = Settings::from_environment();
    start_logging(&settings);
    let aws = aws::sdk_config()?;
    let store = Store::new(
        aws_sdk_dynamodb::Client::new(&aws),
        ServiceClient::new(&aws, Service::Kms),
        settings.text("TABLE")?,
        settings.text("KMS_KEY_ID")?,
    )
    .of_installation(settings.text_or("INSTALLATION", ""));
    let secrets = ServiceClient::new(&aws, Service::SecretsManager);
    let peers = Peers::read(secrets, &settings).await?;
    let function = FulfilSwap::new(store, peers, ClockAndRng::real(), &settings)?;
    run(service_fn(async |event: LambdaEvent<Event>| {
        Ok::<_, Error>(function.handle(event).await)
    }))
    .await?;
    Ok(())
}
