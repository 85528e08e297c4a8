//! The Lambda entry point for `POST /api/CancelActivation` and `POST /api/ResendEsim`. The handler is in `lib.rs`.

use std::convert::Infallible;

use edge::{ClockAndRng, FatalError, Settings, sdk_config, start_logging};
use lambda_http::{Request, run, service_fn};
use manage_swap::ManageSwap;
use store::Store;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), FatalError> {
    let settings = Settings::from_environment();
    start_logging(&settings);
    let aws = sdk_config()?;
    let store = Store::new(
        aws_sdk_dynamodb::Client::new(&aws),
        aws_sdk_kms::Config::new(&aws),
        settings.text("TABLE")?,
        settings.text("KMS_KEY_ID")?,
    );
    let function = ManageSwap::new(store, ClockAndRng::real(), &settings)?;
    run(service_fn(async |request: Request| {
        Ok::<_, Infallible>(function.handle(request).await)
    }))
    .await?;
    Ok(())
}
