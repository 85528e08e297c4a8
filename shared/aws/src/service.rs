//! A client for KMS, Lambda, Secrets Manager and SQS. It is built from the parts of the SDK's clients, and signs, retries and
//! times out as they do. Their crates have types for every call of a service, and take minutes to compile.

use std::fmt;

use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::retries::classifiers::AwsErrorCodeClassifier;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier};
use aws_smithy_runtime::client::retries::{RetryPartition, TokenBucket};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::auth::{
    AuthSchemeId, AuthSchemeOptionResolverParams, SharedAuthScheme, SharedAuthSchemeOptionResolver,
};
use aws_smithy_runtime_api::client::identity::SharedIdentityResolver;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::error::ErrorMetadata;
use aws_smithy_types::retry::RetryConfig;
use aws_types::region::SigningRegion;
use aws_types::service_config::ServiceConfigKey;
use aws_types::{SdkConfig, SigningName};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Why a call failed, as the clients of the SDK report it.
pub type CallError = SdkError<ErrorMetadata, HttpResponse>;

/// An AWS service.
#[derive(Debug, Clone, Copy)]
pub enum Service {
    /// Key Management Service, with the AWS JSON 1.1 protocol.
    Kms,
    /// Lambda, with REST and JSON.
    Lambda,
    /// Secrets Manager, with the AWS JSON 1.1 protocol.
    SecretsManager,
    /// Simple Queue Service, with the AWS JSON 1.0 protocol.
    Sqs,
}

impl Service {
    /// The service's id, from which the SDKs derive the names of its settings: `AWS_ENDPOINT_URL_SECRETS_MANAGER`.
    fn id(self) -> &'static str {
        match self {
            Self::Kms => "KMS",
            Self::Lambda => "Lambda",
            Self::SecretsManager => "Secrets Manager",
            Self::Sqs => "SQS",
        }
    }

    /// The service's name in signatures and host names.
    fn name(self) -> &'static str {
        match self {
            Self::Kms => "kms",
            Self::Lambda => "lambda",
            Self::SecretsManager => "secretsmanager",
            Self::Sqs => "sqs",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Sqs => "application/x-amz-json-1.0",
            Self::Kms | Self::Lambda | Self::SecretsManager => "application/x-amz-json-1.1",
        }
    }
}

/// A client for one AWS service. Clones are cheap and share their state.
#[derive(Debug, Clone)]
pub struct ServiceClient {
    operation: Operation<Call, Response, ErrorMetadata>,
    service: Service,
}

/// A request to the service.
#[derive(Debug, Clone)]
struct Call {
    path: String,
    headers: Vec<(&'static str, &'static str)>,
    body: String,
}

/// The body of a response. It may be a secret.
struct Response(Value);

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Response")
    }
}

impl ServiceClient {
    /// A client for the service in the region of `config`, or at the URL that `AWS_ENDPOINT_URL_…` or
    /// `AWS_ENDPOINT_URL` names.
    pub fn new(config: &SdkConfig, service: Service) -> Self {
        Self::with_endpoint(config, service, &endpoint(config, service))
    }

    /// A client for the service at this URL.
    pub fn with_endpoint(config: &SdkConfig, service: Service, url: &str) -> Self {
        let builder = Operation::builder()
            .service_name(service.id())
            .operation_name("call")
            .endpoint_url(url)
            .standard_retry(&config.retry_config().cloned().unwrap_or_else(RetryConfig::standard))
            .retry_classifier(TransientErrorClassifier::<ErrorMetadata>::new())
            .retry_classifier(HttpStatusCodeClassifier::default())
            .retry_classifier(AwsErrorCodeClassifier::<ErrorMetadata>::new())
            .runtime_plugin(components(config, service));
        let builder = match config.auth_scheme_preference() {
            Some(preferred) if preferred.clone().into_iter().eq([AuthSchemeId::from("noAuth")]) => builder.no_auth(),
            _ => builder.runtime_plugin(signing(config, service)),
        };
        let operation = builder.serializer(to_request).deserializer(from_response).build();
        Self { operation, service }
    }

    /// Calls an operation of the service's AWS JSON protocol. `target` is its name in the header `X-Amz-Target`.
    pub async fn call(&self, target: &'static str, input: &Value) -> Result<Value, CallError> {
        let headers = vec![("content-type", self.service.content_type()), ("x-amz-target", target)];
        let call = Call {
            path: "/".to_owned(),
            headers,
            body: input.to_string(),
        };
        Ok(self.operation.invoke(call).await?.0)
    }

    /// Invokes a Lambda function without waiting for its result. `function` is its name or ARN, `event` is JSON.
    pub async fn invoke_later(&self, function: &str, event: String) -> Result<(), CallError> {
        const UNRESERVED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
        let function = utf8_percent_encode(function, &UNRESERVED);
        let call = Call {
            path: format!("/2015-03-31/functions/{function}/invocations"),
            headers: vec![
                ("content-type", "application/octet-stream"),
                ("x-amz-invocation-type", "Event"),
            ],
            body: event,
        };
        self.operation.invoke(call).await?;
        Ok(())
    }
}

/// The URL of a service: as configured, or the one that AWS documents for the region. Regions of AWS China have a domain
/// of their own.
fn endpoint(config: &SdkConfig, service: Service) -> String {
    let key = ServiceConfigKey::builder()
        .service_id(service.id())
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build();
    let own = key.ok().and_then(|key| config.service_config()?.load_config(key));
    own.or_else(|| config.endpoint_url().map(str::to_owned))
        .unwrap_or_else(|| {
            let region = config.region().map_or("", |region| region.as_ref());
            let domain = if region.starts_with("cn-") {
                "amazonaws.com.cn"
            } else {
                "amazonaws.com"
            };
            format!("https://{}.{region}.{domain}", service.name())
        })
}

/// The parts that all clients of the configuration share. The client's retries have a budget of their own.
fn components(config: &SdkConfig, service: Service) -> StaticRuntimePlugin {
    let mut layer = Layer::new("config");
    if let Some(timeouts) = config.timeout_config() {
        layer.store_put(timeouts.clone());
    }
    let budget = RetryPartition::custom(service.id()).token_bucket(TokenBucket::default());
    layer.store_put(budget.build());
    let components = RuntimeComponentsBuilder::new("config")
        .with_http_client(config.http_client())
        .with_sleep_impl(config.sleep_impl())
        .with_time_source(config.time_source());
    StaticRuntimePlugin::new()
        .with_config(layer.freeze())
        .with_runtime_components(components)
}

/// Signs requests with Signature Version 4 and the credentials of the configuration.
fn signing(config: &SdkConfig, service: Service) -> StaticRuntimePlugin {
    let mut layer = Layer::new("signing");
    layer.store_put(AuthSchemeOptionResolverParams::new(()));
    layer.store_put(SigV4OperationSigningConfig {
        region: config.region().cloned().map(SigningRegion::from),
        name: Some(SigningName::from_static(service.name())),
        ..SigV4OperationSigningConfig::default()
    });
    let schemes = StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID]);
    let mut components = RuntimeComponentsBuilder::new("signing")
        .with_auth_scheme_option_resolver(Some(SharedAuthSchemeOptionResolver::new(schemes)))
        .with_auth_scheme(SharedAuthScheme::new(SigV4AuthScheme::new()));
    if let Some(credentials) = config.credentials_provider() {
        components.set_identity_resolver(SCHEME_ID, SharedIdentityResolver::new(credentials));
    }
    StaticRuntimePlugin::new()
        .with_config(layer.freeze())
        .with_runtime_components(components)
}

fn to_request(call: Call) -> Result<HttpRequest, BoxError> {
    let mut request = HttpRequest::new(SdkBody::from(call.body));
    request.set_method("POST")?;
    request.set_uri(call.path)?;
    for (name, value) in call.headers {
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

fn from_response(response: &HttpResponse) -> Result<Response, OrchestratorError<ErrorMetadata>> {
    let body = response.body().bytes().unwrap_or_default();
    let parsed = serde_json::from_slice::<Value>(body);
    if response.status().is_success() {
        return match parsed {
            Ok(body) => Ok(Response(body)),
            // Lambda accepts an event with an empty body.
            Err(_) if body.is_empty() => Ok(Response(Value::Null)),
            Err(error) => Err(OrchestratorError::other(error)),
        };
    }
    let body = parsed.unwrap_or_default();
    let in_body = body["__type"].as_str();
    let mut error = ErrorMetadata::builder();
    if let Some(kind) = response.headers().get("x-amzn-errortype").or(in_body) {
        error = error.code(error_code(kind));
    }
    if let Some(message) = body["message"].as_str().or(body["Message"].as_str()) {
        error = error.message(message);
    }
    Err(OrchestratorError::operation(error.build()))
}

/// The code of an error, without the namespace before it and the URL after it.
fn error_code(kind: &str) -> &str {
    let name = kind.split(':').next().unwrap_or_default();
    name.rsplit('#').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use aws_credential_types::Credentials;
    use aws_credential_types::provider::SharedCredentialsProvider;
    use aws_smithy_async::rt::sleep::{SharedAsyncSleep, TokioSleep};
    use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
    use aws_smithy_types::error::metadata::ProvideErrorMetadata;
    use aws_types::region::Region;
    use aws_types::service_config::LoadServiceConfig;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that gives these responses (status, header, body), one after the other, and records the requests.
    async fn server(responses: &'static [(u16, &str, &str)]) -> (String, Arc<Mutex<Vec<String>>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        tokio::spawn(async move {
            for (status, header, body) in responses {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut read = vec![0; 4096];
                let length = stream.read(&mut read).await.unwrap();
                seen.lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&read[..length]).into_owned());
                let length = body.len();
                let response = format!(
                    "HTTP/1.1 {status} S\r\n{header}content-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                stream.write_all(response.as_bytes()).await.unwrap();
            }
        });
        (url, requests)
    }

    fn config() -> aws_types::sdk_config::Builder {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", Some("session".to_owned()), None, "test");
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::from_static("eu-central-1"))
            .credentials_provider(SharedCredentialsProvider::new(credentials))
            .sleep_impl(SharedAsyncSleep::new(TokioSleep::new()))
            .http_client(crate::http_client(None))
    }

    #[tokio::test]
    async fn a_call_is_signed_for_its_service_and_region() {
        let (url, requests) = server(&[(200, "", r#"{"Plaintext":"AA=="}"#)]).await;
        let client = ServiceClient::with_endpoint(&config().build(), Service::Kms, &url);
        let response = client
            .call("TrentService.Decrypt", &json!({"KeyId": "k"}))
            .await
            .unwrap();
        assert_eq!(response, json!({"Plaintext": "AA=="}));
        let request = &requests.lock().unwrap()[0];
        let (head, body) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST / HTTP/1.1\r\n"), "{head}");
        assert_eq!(body, r#"{"KeyId":"k"}"#);
        for part in [
            "content-type: application/x-amz-json-1.1",
            "x-amz-target: TrentService.Decrypt",
            "x-amz-security-token: session",
            "authorization: AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/",
            "/eu-central-1/kms/aws4_request",
        ] {
            assert!(head.contains(part), "{part}: {head}");
        }
    }

    #[tokio::test]
    async fn sqs_is_called_with_its_version_of_the_protocol() {
        let (url, requests) = server(&[(200, "", "{}")]).await;
        let client = ServiceClient::with_endpoint(&config().build(), Service::Sqs, &url);
        client.call("AmazonSQS.ReceiveMessage", &json!({})).await.unwrap();
        let request = &requests.lock().unwrap()[0];
        for part in [
            "content-type: application/x-amz-json-1.0",
            "x-amz-target: AmazonSQS.ReceiveMessage",
            "/eu-central-1/sqs/aws4_request",
        ] {
            assert!(request.contains(part), "{part}: {request}");
        }
    }

    #[tokio::test]
    async fn a_function_is_named_by_its_arn() {
        let (url, requests) = server(&[(202, "", "")]).await;
        let client = ServiceClient::with_endpoint(&config().build(), Service::Lambda, &url);
        let function = "arn:aws:lambda:eu-central-1:1:function:fulfil";
        client
            .invoke_later(function, r#"{"Records":[]}"#.to_owned())
            .await
            .unwrap();
        let request = &requests.lock().unwrap()[0];
        let path = "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aeu-central-1%3A1%3Afunction%3Afulfil/invocations";
        assert!(request.starts_with(&format!("POST {path} HTTP/1.1\r\n")), "{request}");
        assert!(request.contains("x-amz-invocation-type: Event"), "{request}");
        assert!(request.contains("/eu-central-1/lambda/aws4_request"), "{request}");
        assert!(request.ends_with(r#"{"Records":[]}"#), "{request}");
    }

    #[tokio::test]
    async fn transient_errors_are_retried_and_others_are_reported() {
        const THROTTLED: (u16, &str, &str) = (400, "", r#"{"__type":"com.amazonaws#ThrottlingException"}"#);
        const DOWN: (u16, &str, &str) = (503, "", "<html>");
        const DENIED: (u16, &str, &str) = (
            403,
            "x-amzn-errortype: AccessDenied:http://x/\r\n",
            r#"{"message":"no"}"#,
        );
        const GARBLED: (u16, &str, &str) = (200, "", "<html>");
        const GOOD: (u16, &str, &str) = (200, "", "{}");
        type Case = (
            &'static [(u16, &'static str, &'static str)],
            Result<(), Option<&'static str>>,
        );
        let cases: [Case; 6] = [
            (&[THROTTLED, DOWN, GOOD], Ok(())),
            (&[DOWN, DOWN, DOWN], Err(None)),
            (&[THROTTLED, THROTTLED, THROTTLED], Err(Some("ThrottlingException"))),
            (&[DENIED], Err(Some("AccessDenied"))),
            (&[GARBLED], Err(None)),
            (
                &[(400, "", r#"{"__type":"NotFoundException"}"#)],
                Err(Some("NotFoundException")),
            ),
        ];
        for (responses, expected) in cases {
            let (url, requests) = server(responses).await;
            let client = ServiceClient::with_endpoint(&config().build(), Service::SecretsManager, &url);
            let result = client.call("secretsmanager.GetSecretValue", &json!({})).await;
            let result = result.map(drop).map_err(|error| error.code().map(str::to_owned));
            assert_eq!(
                result,
                expected.map_err(|code| code.map(str::to_owned)),
                "{responses:?}"
            );
            assert_eq!(requests.lock().unwrap().len(), responses.len(), "{responses:?}");
        }
    }

    #[test]
    fn the_endpoint_is_as_configured_or_of_the_region() {
        #[derive(Debug)]
        struct Own;
        impl LoadServiceConfig for Own {
            fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
                (key.service_id() == "Secrets Manager" && key.env() == "AWS_ENDPOINT_URL")
                    .then(|| "http://own".to_owned())
            }
        }
        let china = config().region(Region::from_static("cn-north-1")).build();
        let all = config().endpoint_url("http://all").service_config(Own).build();
        for (config, service, url) in [
            (
                &config().build(),
                Service::Lambda,
                "https://lambda.eu-central-1.amazonaws.com",
            ),
            (&china, Service::Kms, "https://kms.cn-north-1.amazonaws.com.cn"),
            (&all, Service::Kms, "http://all"),
            (&all, Service::SecretsManager, "http://own"),
            (
                &config().build(),
                Service::Sqs,
                "https://sqs.eu-central-1.amazonaws.com",
            ),
        ] {
            assert_eq!(endpoint(config, service), url);
        }
    }

    #[test]
    fn debug_output_shows_no_response() {
        assert_eq!(format!("{:?}", Response(json!({"Plaintext": "s3cret"}))), "Response");
    }
}
