//! The Lambda entry point for `POST /api/SimSwapSubscription`. The handler is in `lib.rs`.

use std::convert::Infallible;

use aws::{Service, ServiceClient};
use aws_sdk_dynamodb::Client;
use edge::{ClockAndRng, FatalError, Settings, start_logging};
use lambda_http::{Request, run, service_fn};
use submit_swap::SubmitSwap;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), FatalError> {
    let settings = Settings::from_environment();
    start_logging(&settings);
    let aws = aws::sdk_config()?;
    let store = settings.store(Client::new(&aws), ServiceClient::new(&aws, Service::Kms))?;
    let function = SubmitSwap::new(store, ClockAndRng::real(), &settings)?;
    run(service_fn(async |request: Request| {
        Ok::<_, Infallible>(function.handle(request).await)
    }))
    .await?;
    Ok(())
}
