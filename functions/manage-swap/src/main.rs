//! The Lambda entry point for `POST /api/CancelActivation`, `/api/ResendEsim`, `/api/RenewEsim` and
//! `/api/ReportInstalled`. The handler is in `lib.rs`.

use std::convert::Infallible;

use aws::{Service, ServiceClient};
use edge::{ClockAndRng, FatalError, Settings, start_logging};
use lambda_http::{Request, run, service_fn};
use manage_swap::ManageSwap;
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
    let function = ManageSwap::new(store, ClockAndRng::real(), &settings)?;
    run(service_fn(async |request: Request| {
        Ok::<_, Infallible>(function.handle(request).await)
    }))
    .await?;
    Ok(())
}
