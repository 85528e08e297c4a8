//! The Lambda entry point for the events of SES. The handler is in `lib.rs`.

use aws::{Service, ServiceClient};
use aws_sdk_dynamodb::Client;
use edge::{ClockAndRng, FatalError, Settings, start_logging};
use lambda_runtime::{Error, LambdaEvent, run, service_fn};
use mail_events::{MailEvents, SnsEvent};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), FatalError> {
    let settings = Settings::from_environment();
    start_logging(&settings);
    let aws = aws::sdk_config()?;
    let store = settings.store(Client::new(&aws), ServiceClient::new(&aws, Service::Kms))?;
    let function = MailEvents::new(store, ClockAndRng::real(), &settings)?;
    run(service_fn(async |event: LambdaEvent<SnsEvent>| {
        Ok::<_, Error>(function.handle(event).await?)
    }))
    .await?;
    Ok(())
}
