//! An event source mapping: reads the table's stream and delivers change records to one function, in batches and with
//! retries. Which records match is in `filter.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dynoxide::Database;
use dynoxide::actions::describe_stream::DescribeStreamRequest;
use dynoxide::actions::get_records::GetRecordsRequest;
use dynoxide::actions::get_shard_iterator::GetShardIteratorRequest;
use dynoxide::actions::list_streams::ListStreamsRequest;
use dynoxide::errors::DynoxideError;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::StartError;
use crate::data_dir::{self, CHECKPOINTS, unusable};
use crate::filter::Filter;
use crate::functions::Functions;
use crate::request_id::request_id;

/// The default maximum number of records in one event.
pub(crate) const BATCH: usize = 10;
/// The maximum number of concurrent events of one consumer.
const IN_FLIGHT: usize = 4;
/// The number of waiting records above which no more are read.
const READ_AHEAD: usize = 1000;
/// The interval at which an idle event source polls the stream.
const IDLE: Duration = Duration::from_millis(25);
/// The maximum number of deliveries of a record.
const MAX_ATTEMPTS: u32 = 5;
/// The first and the longest wait of a failed record. The wait doubles with each attempt.
const BACKOFF: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(1)];

/// One consumer of the stream. Several can run concurrently, and are independent of each other.
pub struct EventSource {
    /// The database that contains the table.
    pub database: Database,
    /// The name of a table with a stream.
    pub table: String,
    /// The functions, among them the consumer.
    pub functions: Arc<Functions>,
    /// The name of the function that receives the records.
    pub function: &'static str,
    /// A record is delivered if it matches one of these filters, or if there are none.
    pub filters: Vec<Filter>,
    /// The maximum number of records in one event.
    pub batch: usize,
    /// The directory that stores the checkpoint. With `None`, each run starts at the beginning of the stream.
    pub data_dir: Option<PathBuf>,
    /// Receives the records whose delivery failed too often.
    pub dead_letters: DeadLetters,
}

/// The dead-letter queue: records whose delivery was given up, oldest first.
#[derive(Debug, Clone, Default)]
pub struct DeadLetters(Arc<Mutex<Vec<DeadLetter>>>);

/// A record whose delivery was given up.
#[derive(Debug, Clone)]
pub(crate) struct DeadLetter {
    pub(crate) id: String,
    pub(crate) at: Timestamp,
    /// The function that failed.
    pub(crate) function: &'static str,
    pub(crate) record: Value,
}

impl DeadLetters {
    /// All records in the queue.
    pub fn list(&self) -> Vec<Value> {
        self.letters().into_iter().map(|letter| letter.record).collect()
    }

    pub(crate) fn letters(&self) -> Vec<DeadLetter> {
        self.lock().clone()
    }

    pub(crate) fn remove(&self, id: &str) {
        self.lock().retain(|letter| letter.id != id);
    }

    fn push(&self, function: &'static str, records: Vec<Value>) {
        self.lock().extend(records.into_iter().map(|record| DeadLetter {
            id: request_id(),
            at: Timestamp::now(),
            function,
            record,
        }));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<DeadLetter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds an index that the engine's stream lacks. The engine keeps every record for ever, and searches for the newest at
/// each write and each poll; without the index, both become slower with every write.
///
/// # Errors
/// When the database file cannot be written.
pub fn index_stream(database: &Path) -> Result<(), StartError> {
    let sql = "CREATE INDEX IF NOT EXISTS simswap_stream_records
               ON _stream_records (table_name, CAST(sequence_number AS INTEGER))";
    rusqlite::Connection::open(database)
        .and_then(|connection| connection.execute(sql, []))
        .map_err(|error| StartError(format!("cannot use {}: {error}", database.display())))?;
    Ok(())
}

/// A position in the stream; all records up to `after` are done.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Checkpoint {
    stream: String,
    after: Option<String>,
}

/// A record that was read and is not done. A failed record does not hold back later ones, as it would in a real shard:
/// a consumer reads the row that a record names, so neither the order nor a repetition matters to it.
struct Pending {
    event: Value,
    item: String,
    /// The sequence number of the previous record in the stream, if any.
    before: Option<String>,
    due: Instant,
    attempts: u32,
    in_flight: bool,
}

struct Progress {
    /// By sequence number. All have the same length, so they sort correctly as text.
    pending: BTreeMap<String, Pending>,
    /// The sequence number of the last record that was read.
    read: Option<String>,
}

impl EventSource {
    /// Delivers until `stop` completes, and then waits for the events in flight. A record that fails is delivered up to
    /// five times in all.
    ///
    /// # Errors
    /// When the table has no stream, or the checkpoint cannot be written.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        let mut stop = pin!(stop);
        let stream = self.stream()?;
        let file = match &self.data_dir {
            None => None,
            Some(data_dir) => {
                let file = format!("{}.json", self.function);
                Some(data_dir::file_in(data_dir, CHECKPOINTS, &file)?)
            }
        };
        let mut saved = file
            .as_ref()
            .and_then(|file| serde_json::from_slice::<Checkpoint>(&fs::read(file).ok()?).ok())
            // A table that was deleted and created again has another stream.
            .filter(|saved| saved.stream == stream)
            .unwrap_or(Checkpoint {
                stream: stream.clone(),
                after: None,
            });
        let mut progress = Progress {
            pending: BTreeMap::new(),
            read: saved.after.clone(),
        };
        let mut iterator = self.iterator(&stream, saved.after.as_deref())?;
        let mut in_flight = JoinSet::new();
        let mut stopping = false;
        loop {
            let mut busy = false;
            if !stopping {
                if progress.waiting() < READ_AHEAD {
                    match self.read(&mut iterator, &stream, &mut progress).await {
                        Ok(count) => busy = count > 0,
                        Err(error) => tracing::error!(%error, "the stream cannot be read"),
                    }
                }
                while in_flight.len() < IN_FLIGHT
                    && let Some((batch, event)) = progress.take_batch(Instant::now(), self.batch)
                {
                    let (functions, function) = (self.functions.clone(), self.function);
                    in_flight.spawn(async move {
                        let response = functions.invoke(function, event).await;
                        (batch, response.map_err(|error| error.to_string()))
                    });
                }
            }
            if let Some(file) = &file
                && *progress.checkpoint() != saved.after
            {
                saved.after = progress.checkpoint().clone();
                // Not synced to disk: if the checkpoint is lost, records are only delivered again.
                let temporary = file.with_extension("tmp");
                fs::write(&temporary, json!(saved).to_string())
                    .and_then(|()| fs::rename(&temporary, file))
                    .map_err(|error| unusable(file, &error))?;
            }
            if stopping && in_flight.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                Some(ended) = in_flight.join_next() => {
                    let (batch, response) = ended.expect("invoking a function does not panic");
                    let failed = response.and_then(|response| failures(&response, &batch));
                    match &failed {
                        Ok(waiting) => tracing::debug!(function = self.function, ?waiting, "delivered"),
                        Err(error) => tracing::warn!(function = self.function, error, "stream records will be delivered again"),
                    }
                    let dead = progress.settle(&batch, failed.ok().as_ref(), Instant::now());
                    if !dead.is_empty() {
                        tracing::error!(function = self.function, records = dead.len(), "stream records were given up");
                        self.dead_letters.push(self.function, dead);
                    }
                }
                () = &mut stop, if !stopping => stopping = true,
                () = sleep(if busy { Duration::ZERO } else { IDLE }), if !stopping => {}
            }
        }
    }

    fn stream(&self) -> Result<String, StartError> {
        let request = ListStreamsRequest {
            table_name: Some(self.table.clone()),
            ..Default::default()
        };
        let listed = self
            .database
            .list_streams(request)
            .map_err(|error| self.unreadable(&error))?;
        let stream = listed.streams.into_iter().next_back();
        stream
            .map(|stream| stream.stream_arn)
            .ok_or_else(|| StartError(format!("the table {} has no stream", self.table)))
    }

    fn iterator(&self, stream: &str, after: Option<&str>) -> Result<String, StartError> {
        let request = DescribeStreamRequest {
            stream_arn: stream.to_owned(),
            ..Default::default()
        };
        let described = self
            .database
            .describe_stream(request)
            .map_err(|error| self.unreadable(&error))?;
        // The engine has one shard in each stream.
        let shard = described.stream_description.shards.into_iter().next();
        let request = GetShardIteratorRequest {
            stream_arn: stream.to_owned(),
            shard_id: shard.map(|shard| shard.shard_id).unwrap_or_default(),
            shard_iterator_type: match after {
                None => "TRIM_HORIZON".to_owned(),
                Some(_) => "AFTER_SEQUENCE_NUMBER".to_owned(),
            },
            sequence_number: after.map(str::to_owned),
        };
        let iterator = self
            .database
            .get_shard_iterator(request)
            .map_err(|error| self.unreadable(&error))?;
        Ok(iterator.shard_iterator.unwrap_or_default())
    }

    fn unreadable(&self, error: &DynoxideError) -> StartError {
        StartError(format!("cannot read the stream of {}: {error}", self.table))
    }

    /// Reads new records, and returns their number.
    async fn read(&self, iterator: &mut String, stream: &str, progress: &mut Progress) -> Result<usize, DynoxideError> {
        let request = GetRecordsRequest {
            shard_iterator: iterator.clone(),
            limit: Some(READ_AHEAD),
        };
        let database = self.database.clone();
        let response = tokio::task::spawn_blocking(move || database.get_records(request))
            .await
            .expect("the engine does not panic")?;
        if let Some(next) = response.next_shard_iterator {
            *iterator = next;
        }
        let count = response.records.len();
        for record in response.records {
            let sequence_number = record.dynamodb.sequence_number.clone();
            let mut event = json!(record);
            event["eventSourceARN"] = stream.into();
            let before = progress.read.replace(sequence_number.clone());
            if self.filters.is_empty() || self.filters.iter().any(|filter| filter.matches(&event)) {
                let pending = Pending {
                    item: event["dynamodb"]["Keys"].to_string(),
                    event,
                    before,
                    due: Instant::now(),
                    attempts: 0,
                    in_flight: false,
                };
                progress.pending.insert(sequence_number, pending);
            }
        }
        Ok(count)
    }
}

impl Progress {
    /// The sequence number of the last record before the first one that is not done.
    fn checkpoint(&self) -> &Option<String> {
        match self.pending.first_key_value() {
            Some((_, first)) => &first.before,
            None => &self.read,
        }
    }

    fn waiting(&self) -> usize {
        let never_attempted = |pending: &&Pending| pending.attempts == 0 && !pending.in_flight;
        self.pending.values().filter(never_attempted).count()
    }

    /// The next records that are due, and the event that contains them. Records of an item that is in flight wait,
    /// because two concurrent invocations would only conflict over the item's row.
    fn take_batch(&mut self, now: Instant, most: usize) -> Option<(Vec<String>, String)> {
        let in_flight = self.pending.values().filter(|pending| pending.in_flight);
        let items: BTreeSet<String> = in_flight.map(|pending| pending.item.clone()).collect();
        let mut batch = Vec::new();
        let mut records = Vec::new();
        let due = |pending: &Pending| !pending.in_flight && pending.due <= now && !items.contains(&pending.item);
        let ready = self.pending.iter_mut().filter(|(_, pending)| due(pending));
        for (sequence_number, pending) in ready.take(most) {
            pending.in_flight = true;
            batch.push(sequence_number.clone());
            records.push(pending.event.clone());
        }
        (!batch.is_empty()).then(|| (batch, json!({"Records": records}).to_string()))
    }

    /// Removes the records that are done, and reschedules the failed ones with a longer wait. `failed` has their
    /// sequence numbers; with `None`, the whole batch failed. Returns the records that failed too often.
    fn settle(&mut self, batch: &[String], failed: Option<&BTreeSet<String>>, now: Instant) -> Vec<Value> {
        let mut dead = Vec::new();
        for sequence_number in batch {
            let Some(mut pending) = self.pending.remove(sequence_number) else {
                continue;
            };
            if failed.is_some_and(|failed| !failed.contains(sequence_number)) {
                continue;
            }
            pending.attempts += 1;
            if pending.attempts == MAX_ATTEMPTS {
                dead.push(pending.event);
                continue;
            }
            pending.in_flight = false;
            pending.due = now + BACKOFF[1].min(BACKOFF[0] * 2_u32.pow(pending.attempts - 1));
            self.pending.insert(sequence_number.clone(), pending);
        }
        dead
    }
}

/// A partial batch response of Lambda.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BatchResponse {
    batch_item_failures: Option<Vec<ItemFailure>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemFailure {
    item_identifier: String,
}

/// The records of the batch that failed. As in Lambda, a response without a list means that none failed. An error, such
/// as a name that is not in the batch, means that all failed.
fn failures(response: &str, batch: &[String]) -> Result<BTreeSet<String>, String> {
    let response: Option<BatchResponse> =
        serde_json::from_str(response).map_err(|_| "the response is not a partial batch response".to_owned())?;
    let failed = response
        .and_then(|response| response.batch_item_failures)
        .unwrap_or_default();
    let failed: BTreeSet<String> = failed.into_iter().map(|failure| failure.item_identifier).collect();
    match failed.iter().all(|name| batch.contains(name)) {
        true => Ok(failed),
        false => Err("the response names a record that was not in the batch".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::events;
    use aws_lambda_events::event::dynamodb::Event;
    use aws_lambda_events::event::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
    use lambda_runtime::LambdaEvent;
    use serde::de::DeserializeOwned;
    use tokio::sync::{mpsc, oneshot};
    use tokio::task::JoinHandle;

    fn from_json<T: DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn database() -> Database {
        let database = Database::memory().unwrap();
        create_table(&database);
        database
    }

    fn create_table(database: &Database) {
        let table = json!({
            "TableName": "rows", "BillingMode": "PAY_PER_REQUEST",
            "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}],
            "AttributeDefinitions": [{"AttributeName": "pk", "AttributeType": "S"}],
            "StreamSpecification": {"StreamEnabled": true, "StreamViewType": "KEYS_ONLY"},
        });
        database.create_table(from_json(table)).unwrap();
    }

    fn put(database: &Database, pk: &str) {
        // A put that changes nothing creates no change record, so every put differs.
        let version = crate::request_id::request_id();
        let item = json!({"TableName": "rows", "Item": {"pk": {"S": pk}, "version": {"S": version}}});
        database.put_item(from_json(item)).unwrap();
    }

    /// A running event source, whose function sends each key that it receives, and fails as configured.
    struct Running {
        delivered: mpsc::UnboundedReceiver<String>,
        stop: oneshot::Sender<()>,
        event_source: JoinHandle<Result<(), StartError>>,
        dead_letters: DeadLetters,
    }

    #[derive(Clone, Copy, PartialEq)]
    enum Failing {
        Never,
        /// The first delivery of keys with a `!`, by naming them.
        Named,
        /// The first delivery of keys with a `!`, with the whole batch.
        Whole,
        /// Every delivery of keys with a `!`, by naming them.
        Always,
    }

    fn start(database: &Database, filter: Option<Value>, data_dir: Option<&Path>, failing: Failing) -> Running {
        let (sender, delivered) = mpsc::unbounded_channel();
        let seen = Arc::new(std::sync::Mutex::new(BTreeSet::new()));
        let handler = events(move |event: LambdaEvent<Event>| {
            let (sender, seen) = (sender.clone(), seen.clone());
            async move {
                let mut response = DynamoDbEventResponse::default();
                let mut whole = false;
                for record in event.payload.records {
                    let pk = json!(record.change.keys)["pk"]["S"].as_str().unwrap().to_owned();
                    let first = seen.lock().unwrap().insert(pk.clone());
                    if pk.contains('!') && (failing == Failing::Always || first && failing != Failing::Never) {
                        whole |= failing == Failing::Whole;
                        let mut failure = DynamoDbBatchItemFailure::default();
                        failure.item_identifier = record.change.sequence_number;
                        response.batch_item_failures.push(failure);
                    }
                    sender.send(pk).unwrap();
                }
                if whole { Err("whole") } else { Ok(response) }
            }
        });
        let dead_letters = DeadLetters::default();
        let event_source = EventSource {
            database: database.clone(),
            table: "rows".to_owned(),
            functions: Arc::new(Functions::InProcess(BTreeMap::from([("f", handler)]))),
            function: "f",
            filters: filter.iter().map(|filter| Filter::parse(filter).unwrap()).collect(),
            batch: BATCH,
            data_dir: data_dir.map(Path::to_owned),
            dead_letters: dead_letters.clone(),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async { stopped.await.unwrap() };
        Running {
            delivered,
            stop,
            event_source: tokio::spawn(event_source.run(stopped)),
            dead_letters,
        }
    }

    impl Running {
        async fn next(&mut self) -> String {
            self.delivered.recv().await.unwrap()
        }

        /// Stops the event source, and returns the remaining keys that were delivered.
        async fn stop(mut self) -> Vec<String> {
            self.stop.send(()).unwrap();
            self.event_source.await.unwrap().unwrap();
            let mut rest = Vec::new();
            while let Some(pk) = self.delivered.recv().await {
                rest.push(pk);
            }
            rest
        }
    }

    #[tokio::test]
    async fn each_record_is_delivered_once_and_new_records_too() {
        let database = database();
        let expected: Vec<String> = (10..35).map(|n| n.to_string()).collect();
        expected.iter().for_each(|pk| put(&database, pk));
        let mut running = start(&database, None, None, Failing::Never);
        let mut delivered = Vec::new();
        for _ in &expected {
            delivered.push(running.next().await);
        }
        // Batches run concurrently.
        delivered.sort();
        assert_eq!(delivered, expected);
        put(&database, "later");
        assert_eq!(running.next().await, "later");
        assert_eq!(running.stop().await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn failed_records_are_delivered_again_and_hold_back_no_others() {
        for (failing, again) in [(Failing::Named, vec!["2!"]), (Failing::Whole, vec!["1", "2!", "3"])] {
            let database = database();
            ["1", "2!", "3"].iter().for_each(|pk| put(&database, pk));
            let mut running = start(&database, None, None, failing);
            for expected in ["1", "2!", "3"].iter().chain(&again) {
                assert_eq!(running.next().await, *expected);
            }
            assert_eq!(running.stop().await, Vec::<String>::new());
        }
        let database = database();
        put(&database, "poison!");
        let mut running = start(&database, None, None, Failing::Always);
        assert_eq!(running.next().await, "poison!");
        put(&database, "good");
        let mut seen = BTreeMap::from([("poison!".to_owned(), 1)]);
        while seen.get("poison!") != Some(&MAX_ATTEMPTS) || !seen.contains_key("good") {
            *seen.entry(running.next().await).or_insert(0) += 1;
        }
        let dead_letters = running.dead_letters.clone();
        assert_eq!(running.stop().await, Vec::<String>::new());
        assert_eq!(dead_letters.list().len(), 1);
    }

    #[tokio::test]
    async fn only_matching_records_are_delivered() {
        let database = database();
        ["A#1", "B#1", "A#2"].iter().for_each(|pk| put(&database, pk));
        let filter = json!({"eventName": ["INSERT"], "dynamodb": {"Keys": {"pk": {"S": [{"prefix": "A#"}]}}}});
        let mut running = start(&database, Some(filter), None, Failing::Never);
        put(&database, "A#1");
        put(&database, "A#3");
        for expected in ["A#1", "A#2", "A#3"] {
            assert_eq!(running.next().await, expected);
        }
        assert_eq!(running.stop().await, Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_restart_continues_at_the_first_record_that_is_not_done() {
        let database = database();
        let directory = tempfile::tempdir().unwrap();
        ["1", "2!", "3"].iter().for_each(|pk| put(&database, pk));
        let mut running = start(&database, None, Some(directory.path()), Failing::Always);
        for expected in ["1", "2!", "3"] {
            assert_eq!(running.next().await, expected);
        }
        running.stop().await;

        // "1" is not delivered again, but "3" is, because the checkpoint stays before "2!".
        let mut running = start(&database, None, Some(directory.path()), Failing::Never);
        assert_eq!([running.next().await, running.next().await], ["2!", "3"]);
        assert_eq!(running.stop().await, Vec::<String>::new());

        put(&database, "4");
        let mut running = start(&database, None, Some(directory.path()), Failing::Never);
        assert_eq!(running.next().await, "4");
        running.stop().await;

        let file = directory.path().join(CHECKPOINTS).join("f.json");
        fs::write(&file, r#"{"stream": "another", "after": null}"#).unwrap();
        let mut running = start(&database, None, Some(directory.path()), Failing::Never);
        assert_eq!(running.next().await, "1");
        running.stop().await;
    }

    #[tokio::test]
    async fn a_table_without_a_stream_is_reported() {
        let database = Database::memory().unwrap();
        let running = start(&database, None, None, Failing::Never);
        let error = running.event_source.await.unwrap().unwrap_err();
        assert_eq!(error.to_string(), "the table rows has no stream");
    }

    #[test]
    fn an_item_is_in_one_event_at_a_time_and_each_failure_waits_longer() {
        let now = Instant::now();
        let pending = |item: &str| Pending {
            event: Value::Null,
            item: item.to_owned(),
            before: None,
            due: now,
            attempts: 0,
            in_flight: false,
        };
        let mut progress = Progress {
            pending: BTreeMap::from([("1".to_owned(), pending("a")), ("2".to_owned(), pending("b"))]),
            read: None,
        };
        let (batch, _) = progress.take_batch(now, BATCH).unwrap();
        assert_eq!(batch, ["1", "2"]);
        progress.pending.insert("3".to_owned(), pending("a"));
        assert!(progress.take_batch(now, BATCH).is_none());
        progress.settle(&batch, Some(&BTreeSet::from(["2".to_owned()])), now);
        assert_eq!(progress.take_batch(now, BATCH).unwrap().0, ["3"]);
        let mut waits = Vec::new();
        let mut dead = Vec::new();
        while dead.is_empty() {
            waits.push((progress.pending["2"].due - now).as_millis());
            dead = progress.settle(&["2".to_owned()], None, now);
        }
        assert_eq!(waits, [100, 200, 400, 800]);
        assert!(!progress.pending.contains_key("2"));
    }

    #[test]
    fn responses_are_interpreted_as_in_lambda() {
        let batch = ["1".to_owned(), "2".to_owned()];
        for (response, failed) in [
            ("null", Some(0)),
            ("{}", Some(0)),
            (r#"{"batchItemFailures": null}"#, Some(0)),
            (r#"{"batchItemFailures": []}"#, Some(0)),
            (r#"{"batchItemFailures": [{"itemIdentifier": "2"}]}"#, Some(1)),
            (r#"{"batchItemFailures": [{"itemIdentifier": ""}]}"#, None),
            (r#"{"batchItemFailures": [{"itemIdentifier": null}]}"#, None),
            (r#"{"batchItemFailures": [{"name": "2"}]}"#, None),
            (r#"{"batchItemFailures": [{"itemIdentifier": "3"}]}"#, None),
            ("\"done\"", None),
        ] {
            assert_eq!(failures(response, &batch).ok().map(|f| f.len()), failed, "{response}");
        }
    }

    #[test]
    fn the_queries_of_the_engine_use_the_index() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("db");
        let database = Database::new(path.to_str().unwrap()).unwrap();
        create_table(&database);
        index_stream(&path).unwrap();
        index_stream(&path).unwrap();
        put(&database, "1");
        let connection = rusqlite::Connection::open(&path).unwrap();
        for query in [
            "SELECT COALESCE(MAX(CAST(sequence_number AS INTEGER)), 0) + 1 FROM _stream_records WHERE table_name = 't'",
            "SELECT event_name FROM _stream_records WHERE table_name = 't' AND shard_id = 's'
             AND CAST(sequence_number AS INTEGER) > 5 ORDER BY CAST(sequence_number AS INTEGER) ASC LIMIT 9",
        ] {
            let plan: String = connection
                .query_row(&format!("EXPLAIN QUERY PLAN {query}"), [], |row| row.get(3))
                .unwrap();
            assert!(
                plan.starts_with("SEARCH") && plan.contains("simswap_stream_records"),
                "{plan}"
            );
        }
    }
}
