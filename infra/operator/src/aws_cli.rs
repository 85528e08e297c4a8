//! Credentials and region as the AWS CLI has them: it knows profiles, single sign-on, roles and programs that supply
//! credentials, so that these commands need not.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, ProvideCredentials, future};
use aws_sdk_dynamodb::config::Region;
use jiff::Timestamp;
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::Mutex;

/// Credentials are exported anew this long before they expire.
const MARGIN: Duration = Duration::from_secs(5 * 60);

/// The AWS CLI, version 2. It reads `AWS_PROFILE` itself.
#[derive(Debug)]
pub(crate) struct AwsCli {
    program: OsString,
    exported: Mutex<Option<Credentials>>,
}

impl AwsCli {
    /// `program` is the command's name, or its path.
    pub(crate) fn new(program: impl Into<OsString>) -> Self {
        Self {
            program: program.into(),
            exported: Mutex::default(),
        }
    }

    /// The region of the profile. The error says why there is none.
    pub(crate) async fn region(&self) -> Result<Region, String> {
        self.run(&["configure", "get", "region"]).await.map(Region::new)
    }

    async fn credentials(&self) -> provider::Result {
        let mut exported = self.exported.lock().await;
        let soon = SystemTime::now() + MARGIN;
        if let Some(credentials) = exported.as_ref()
            && credentials.expiry().is_none_or(|expiry| soon < expiry)
        {
            return Ok(credentials.clone());
        }
        let printed = self.run(&["configure", "export-credentials", "--format", "process"]);
        let credentials = parse(&printed.await.map_err(CredentialsError::provider_error)?)
            .ok_or_else(|| CredentialsError::provider_error("the AWS CLI printed no credentials"))?;
        Ok(exported.insert(credentials).clone())
    }

    /// What the CLI prints. The error is what it reports instead, on one line.
    async fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(&self.program);
        let output = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
        let output = output.await;
        let output = output.map_err(|error| format!("the AWS CLI cannot be run: {error}"))?;
        let text = |bytes: &[u8]| {
            String::from_utf8_lossy(bytes)
                .split_whitespace()
                .collect::<Vec<_>>()
                .join(" ")
        };
        match (output.status.success(), text(&output.stdout), text(&output.stderr)) {
            (true, printed, _) if !printed.is_empty() => Ok(printed),
            (_, _, reported) if !reported.is_empty() => Err(reported),
            _ => Err("the AWS CLI printed nothing".to_owned()),
        }
    }
}

impl ProvideCredentials for AwsCli {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.credentials())
    }
}

/// Reads credentials in the format of a credential process
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>).
fn parse(printed: &str) -> Option<Credentials> {
    let printed: Value = serde_json::from_str(printed).ok()?;
    let text = |name: &str| printed[name].as_str().map(str::to_owned);
    let expiry = text("Expiration").map(|expiry| expiry.parse::<Timestamp>());
    let expiry = expiry.transpose().ok()?.map(SystemTime::from);
    let (id, secret) = (text("AccessKeyId")?, text("SecretAccessKey")?);
    Some(Credentials::new(id, secret, text("SessionToken"), expiry, "AWS CLI"))
}

/// Writes a program that stands in for the CLI, and returns its path. A shell writes it, because a file that this process
/// has open for writing, perhaps through a child that another test starts, cannot be executed.
#[cfg(test)]
pub(crate) fn script(directory: &tempfile::TempDir, body: &str) -> std::path::PathBuf {
    let name = std::fs::read_dir(directory.path()).expect("a directory").count();
    let path = directory.path().join(format!("aws-{name}"));
    let written = std::process::Command::new("sh")
        .args(["-c", r#"printf '#!/bin/sh\n%s\n' "$1" > "$0" && chmod 700 "$0""#])
        .args([path.as_os_str(), body.as_ref()])
        .status();
    assert!(written.expect("a shell").success());
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints credentials that expire after some minutes, with a new id each time.
    fn expiring(directory: &tempfile::TempDir, minutes: u64) -> AwsCli {
        let expiry = Timestamp::try_from(SystemTime::now() + Duration::from_secs(60 * minutes)).expect("a time");
        let calls = directory.path().join("calls");
        AwsCli::new(script(
            directory,
            &format!(
                r#"echo >> {calls}
                echo "{{\"AccessKeyId\": \"$(wc -l < {calls})\", \"SecretAccessKey\": \"secret\",
                    \"SessionToken\": \"token\", \"Expiration\": \"{expiry}\"}}""#,
                calls = calls.display()
            ),
        ))
    }

    #[tokio::test]
    async fn credentials_are_exported_once_until_they_are_about_to_expire() {
        for (minutes, second) in [(10, "1"), (4, "2")] {
            let directory = tempfile::tempdir().expect("a directory");
            let cli = expiring(&directory, minutes);
            let first = cli.provide_credentials().await.expect("credentials");
            assert_eq!((first.access_key_id(), first.session_token()), ("1", Some("token")));
            let again = cli.provide_credentials().await.expect("credentials");
            assert_eq!(again.access_key_id(), second);
        }
    }
}
