//! A sandbox as Lambda runs it: a process with the same environment, and the Runtime API that the process polls for
//! events.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::process::Stdio;
use std::sync::Arc;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::sync::{Mutex, Notify, mpsc};

use crate::BenchError;

/// A process, and the Runtime API that it uses.
pub(crate) struct Sandbox {
    process: Child,
    name: String,
    queue: Arc<Queue>,
    responses: mpsc::UnboundedReceiver<Result<String, String>>,
}

/// Events that wait until the process polls.
struct Queue {
    events: Mutex<VecDeque<String>>,
    more: Notify,
    responses: mpsc::UnboundedSender<Result<String, String>>,
}

impl Sandbox {
    /// Starts `command` with `environment` and the variables that Lambda itself sets, and nothing else.
    pub(crate) async fn start(
        command: &[String],
        environment: &BTreeMap<String, String>,
        first: String,
    ) -> Result<Self, BenchError> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let api = listener.local_addr()?.to_string();
        let (sender, responses) = mpsc::unbounded_channel();
        let queue = Arc::new(Queue {
            events: Mutex::new(VecDeque::from([first])),
            more: Notify::new(),
            responses: sender,
        });
        tokio::spawn(serve(listener, queue.clone()));
        let name = command.last().cloned().unwrap_or_default();
        let process = Command::new(&command[0])
            .args(&command[1..])
            .env_clear()
            .envs(platform())
            .envs(environment)
            .env("AWS_LAMBDA_RUNTIME_API", api)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self {
            process,
            name,
            queue,
            responses,
        })
    }

    /// The response to the first event.
    pub(crate) async fn response(&mut self) -> Result<String, BenchError> {
        tokio::select! {
            response = self.responses.recv() => match response {
                Some(Ok(response)) => Ok(response),
                Some(Err(error)) => Err(format!("{}: {error}", self.name).into()),
                None => Err(format!("{}: the Runtime API ended", self.name).into()),
            },
            ended = self.process.wait() => Err(format!("{}: {}", self.name, ended?).into()),
        }
    }

    /// Sends another event, and waits for its response.
    pub(crate) async fn invoke(&mut self, event: String) -> Result<String, BenchError> {
        self.queue.events.lock().await.push_back(event);
        self.queue.more.notify_one();
        self.response().await
    }

    /// The bytes in memory (`VmRSS`).
    pub(crate) fn resident(&self) -> Result<u64, BenchError> {
        let id = self.process.id().ok_or("the process ended")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.ok_or("no VmRSS")?.parse::<u64>()? * 1024)
    }

    /// Fails if the process has ended.
    pub(crate) fn is_alive(&mut self) -> Result<(), BenchError> {
        match self.process.try_wait()? {
            None => Ok(()),
            Some(status) => Err(format!("{}: {status}", self.name).into()),
        }
    }

    /// The seconds of processor time that the process has taken.
    pub(crate) fn processor(&self) -> Result<f64, BenchError> {
        processor(&self.process.id().ok_or("the process ended")?.to_string())
    }

    /// Ends the process at once, so that it does not disturb the next one.
    pub(crate) async fn kill(mut self) -> Result<(), BenchError> {
        Ok(self.process.kill().await?)
    }

    /// Sends the process the signal that Lambda sends, and waits for its end.
    pub(crate) async fn end(mut self) -> Result<(), BenchError> {
        let id = self.process.id().ok_or("the process ended")?;
        Command::new("kill").arg(id.to_string()).status().await?;
        self.process.wait().await?;
        Ok(())
    }
}

/// The seconds of processor time that a process has taken: `utime` and `stime` of `/proc/{id}/stat`, in ticks of 10 ms.
pub(crate) fn processor(id: &str) -> Result<f64, BenchError> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    let (_, fields) = stat.rsplit_once(')').ok_or("no name in stat")?;
    let ticks = fields.split_whitespace().skip(11).take(2);
    let ticks: Result<Vec<f64>, _> = ticks.map(str::parse).collect();
    Ok(ticks?.iter().sum::<f64>() / 100.0)
}

/// The variables that Lambda sets in every sandbox.
fn platform() -> [(&'static str, &'static str); 19] {
    [
        ("AWS_ACCESS_KEY_ID", "ASIAIOSFODNN7EXAMPLE"),
        ("AWS_DEFAULT_REGION", "eu-central-1"),
        ("AWS_EXECUTION_ENV", "AWS_Lambda_provided.al2023"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "256"),
        ("AWS_LAMBDA_FUNCTION_NAME", "simswap-function"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", "/aws/lambda/simswap-function"),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "2026/11/22/[$LATEST]0123456789abcdef"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_SECRET_ACCESS_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
        ("AWS_SESSION_TOKEN", "IQoJb3JpZ2luX2VjEXAMPLETOKEN"),
        ("LAMBDA_RUNTIME_DIR", "/var/runtime"),
        ("LAMBDA_TASK_ROOT", "/var/task"),
        ("LANG", "en_US.UTF-8"),
        ("PATH", "/usr/local/bin:/usr/bin:/bin:/opt/bin"),
        ("TZ", ":UTC"),
        ("_HANDLER", "bootstrap"),
        ("_X_AMZN_TRACE_ID", "Root=1-67a0c66a-1f2e3d4c5b6a798877665544"),
    ]
}

async fn serve(listener: TcpListener, queue: Arc<Queue>) {
    while let Ok((stream, _)) = listener.accept().await {
        let queue = queue.clone();
        tokio::spawn(async move {
            stream.set_nodelay(true)?;
            let response = service_fn(|request| response(&queue, request));
            // A process that is ended leaves its last poll without a response.
            let _ = http1::Builder::new()
                .serve_connection(TokioIo::new(stream), response)
                .await;
            Ok::<_, std::io::Error>(())
        });
    }
}

/// `GET …/invocation/next`, and `POST …/invocation/{id}/response` or `/error`.
async fn response(queue: &Queue, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    if path.ends_with("/invocation/next") {
        let event = loop {
            if let Some(event) = queue.events.lock().await.pop_front() {
                break event;
            }
            queue.more.notified().await;
        };
        let in_a_minute = jiff::Timestamp::now().as_millisecond() + 60_000;
        let response = Response::builder()
            .header("content-type", "application/json")
            .header("lambda-runtime-aws-request-id", "8476a536-e9f4-11e8-9739-2dfe598c3fcd")
            .header("lambda-runtime-deadline-ms", in_a_minute.to_string())
            .header(
                "lambda-runtime-invoked-function-arn",
                "arn:aws:lambda:eu-central-1:123456789012:function:simswap-function",
            )
            .header(
                "lambda-runtime-trace-id",
                "Root=1-67a0c66a-1f2e3d4c5b6a798877665544;Parent=46aa314abdcf22d5;Sampled=0",
            );
        return Ok(response.body(Full::from(event)).expect("the headers above are headers"));
    }
    let body = match request.into_body().collect().await {
        Ok(body) => String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        Err(error) => error.to_string(),
    };
    let answered = if path.ends_with("/response") {
        Ok(body)
    } else {
        Err(format!("{path}: {body}"))
    };
    // Sending fails only when the sandbox is dropped.
    let _ = queue.responses.send(answered);
    let mut response = Response::new(Full::from("{\"status\":\"OK\"}"));
    *response.status_mut() = StatusCode::ACCEPTED;
    Ok(response)
}
