//! Checks that the code, the template and the documents agree where the compiler cannot check it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use aws::{Service, ServiceClient};
use change_sim::ChangeSim;
use deliver_esim::DeliverEsim;
use domain::{DeliveryState, EsimState, FailureCode, ProfileRequestState, ProfileState, Status};
use edge::{ClockAndRng, Settings};
use fulfil_swap::{FulfilSwap, Peers};
use local::gateway::{Authorizer, ROUTES};
use mail_events::MailEvents;
use manage_swap::ManageSwap;
use network_events::NetworkEvents;
use query_activation::QueryActivation;
use serde_json::{Value, json};
use submit_swap::SubmitSwap;
use sweep_swaps::SweepSwaps;
use tests::TestStack;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn functions() -> BTreeSet<String> {
    let entries = fs::read_dir(root().join("functions")).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The text from the section that applies to all functions of a template.
fn globals(template: &str) -> &str {
    template.split_once("\nGlobals:\n").unwrap().1
}

/// The resources of the template of the functions: the text of each, by its name.
fn resources() -> BTreeMap<String, String> {
    resources_of("infra/template.yaml")
}

/// The resources of a template. The parser relies on the indentation of two spaces.
fn resources_of(template: &str) -> BTreeMap<String, String> {
    let template = read(template);
    let (_, part) = template.split_once("\nResources:\n").unwrap();
    let (part, _) = part.split_once("\nOutputs:\n").unwrap();
    let mut resources = BTreeMap::new();
    let mut current = String::new();
    for line in part.lines() {
        match line.strip_prefix("  ").and_then(|line| line.strip_suffix(':')) {
            Some(name) if !name.starts_with([' ', '#']) => current = name.to_owned(),
            _ => {
                let text: &mut String = resources.entry(current.clone()).or_default();
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    resources
}

pub(crate) fn of_type(kind: &str) -> BTreeMap<String, String> {
    let mut resources = resources();
    resources.retain(|_, text| text.contains(&format!("    Type: {kind}\n")));
    resources
}

/// The text after `name` in a resource, to the end of its line.
pub(crate) fn property<'a>(text: &'a str, name: &str) -> &'a str {
    let (_, after) = text
        .split_once(&format!(" {name}"))
        .unwrap_or_else(|| panic!("{name} in {text}"));
    after.lines().next().unwrap_or_default().trim()
}

#[test]
fn the_template_deploys_each_function() {
    let deployed = of_type("AWS::Serverless::Function");
    let built = deployed
        .values()
        .map(|text| property(text, "CodeUri: ../target/lambda/").to_owned());
    assert_eq!(built.collect::<BTreeSet<_>>(), functions());
    for text in deployed.values() {
        let name = property(text, "CodeUri: ../target/lambda/");
        assert_eq!(
            property(text, "FunctionName:"),
            format!("!Sub ${{AWS::StackName}}-{name}")
        );
    }
}

#[test]
fn the_template_serves_the_gateways_routes() {
    let all = resources();
    let routes = of_type("AWS::ApiGatewayV2::Route");
    assert_eq!(routes.len(), ROUTES.len());
    for route in ROUTES {
        let key = format!("{} {}", route.method, route.path);
        let text = routes.values().find(|text| property(text, "RouteKey:") == key);
        let text = text.unwrap_or_else(|| panic!("{key} is not deployed"));
        let integration = property(text, "Target: !Sub integrations/${").trim_end_matches('}');
        let function = property(&all[integration], "IntegrationUri: !GetAtt").trim_end_matches(".Arn");
        assert_eq!(
            property(&all[function], "CodeUri: ../target/lambda/"),
            route.function,
            "{key}"
        );
        let authorization = match route.authorizer {
            Authorizer::Jwt => "JWT",
            Authorizer::None => "NONE",
        };
        assert_eq!(property(text, "AuthorizationType:"), authorization, "{key}");
        let stage = if authorization == "JWT" {
            "PartnerStage"
        } else {
            "NetworkStage"
        };
        assert!(all[stage].contains(&format!("\"{key}\":")), "{key} has no limit");
    }
}

#[test]
fn the_readme_lists_every_alarm_and_every_part_of_the_dashboard() {
    let readme = read("infra/README.md");
    let alarms = of_type("AWS::CloudWatch::Alarm");
    for (name, text) in &alarms {
        let description = property(text, "AlarmDescription:");
        assert!(readme.contains(&format!("\n| `{name}` | {description} | ")), "{name}");
        assert_eq!(property(text, "AlarmName:"), format!("!Sub ${{AWS::StackName}}-{name}"));
    }
    let (_, rows) = readme.split_once("| alarm | says | then |").unwrap();
    let (rows, rest) = rows.split_once("\n\n").unwrap();
    assert_eq!(
        rows.lines().count() - 2,
        alarms.len(),
        "the table lists an unknown alarm"
    );

    let dashboard = &resources()["Dashboard"];
    let titles = dashboard.split("\"title\": \"").skip(1);
    let titles: Vec<_> = titles.filter_map(|text| text.split('"').next()).collect();
    let (rows, _) = rest.split_once("\n\n").unwrap();
    let rows: Vec<_> = rows.lines().skip(2).filter_map(|row| row.split(" |").next()).collect();
    assert_eq!(
        rows,
        titles.iter().map(|title| format!("| {title}")).collect::<Vec<_>>()
    );
}

#[tokio::test]
async fn the_template_and_the_store_create_the_same_table() {
    let service = TestStack::new().await;
    let request = json!({"TableName": service.stack.endpoints.table});
    let request = serde_json::from_value(request).unwrap();
    let made = service.stack.database.describe_table(request).unwrap();
    let made = &serde_json::to_value(made).unwrap()["Table"];
    let template = &resources_of("infra/table.yaml")["Table"];

    let attributes = made["AttributeDefinitions"].as_array().unwrap().iter();
    let attributes = attributes.map(|attribute| attribute["AttributeName"].as_str().unwrap());
    let mut expected = String::from("      AttributeDefinitions:\n");
    for name in attributes.collect::<BTreeSet<_>>() {
        expected += &format!("        - {{ AttributeName: {name}, AttributeType: S }}\n");
    }
    expected += &keys(&made["KeySchema"], "      ");
    assert!(template.contains(&expected), "{expected}");

    let indexes = made["GlobalSecondaryIndexes"].as_array().unwrap();
    assert_eq!(template.matches("- IndexName: ").count(), indexes.len());
    for index in indexes {
        let expected = format!(
            "        - IndexName: {}\n{}          Projection: {}\n",
            index["IndexName"].as_str().unwrap(),
            keys(&index["KeySchema"], "          "),
            projection(&index["Projection"])
        );
        assert!(template.contains(&expected), "{expected}");
    }
    let stream = &made["StreamSpecification"]["StreamViewType"];
    assert_eq!(property(template, "StreamViewType:"), stream);
    let schema = read("shared/store/src/schema.rs");
    let ttl = property(
        template,
        "TimeToLiveSpecification:\n        Enabled: true\n        AttributeName:",
    );
    assert!(schema.contains(&format!("attribute_name(\"{ttl}\")")), "{ttl}");
}

/// Losing the table or its key would lose every line and SIM.
#[test]
fn the_table_and_its_key_outlive_their_stack() {
    let policy: Value = serde_json::from_str(&read("infra/stack-policy.json")).unwrap();
    let denied = &policy["Statement"][1];
    assert_eq!((&denied["Effect"], &denied["Principal"]), (&json!("Deny"), &json!("*")));
    assert_eq!(denied["Action"], json!(["Update:Replace", "Update:Delete"]));
    let resources = resources_of("infra/table.yaml");
    let mut protected = Vec::new();
    for (name, text) in &resources {
        let retained = text.contains("    DeletionPolicy: RetainExceptOnCreate\n    UpdateReplacePolicy: Retain\n");
        // The alias is only a name of the key.
        assert_eq!(retained, name != "KeyName", "{name}");
        if retained {
            protected.push(format!("LogicalResourceId/{name}"));
        }
    }
    protected.reverse();
    assert_eq!(denied["Resource"], json!(protected));
}

fn keys(schema: &Value, indent: &str) -> String {
    let mut text = format!("{indent}KeySchema:\n");
    for key in schema.as_array().unwrap() {
        let (name, kind) = (key["AttributeName"].as_str(), key["KeyType"].as_str());
        let (name, kind) = (name.unwrap(), kind.unwrap());
        text += &format!("{indent}  - {{ AttributeName: {name}, KeyType: {kind} }}\n");
    }
    text
}

fn projection(projection: &Value) -> String {
    let kind = projection["ProjectionType"].as_str().unwrap();
    let carried = projection["NonKeyAttributes"].as_array();
    let carried: Vec<_> = carried
        .into_iter()
        .flatten()
        .map(|name| name.as_str().unwrap())
        .collect();
    match &carried[..] {
        [] => format!("{{ ProjectionType: {kind} }}"),
        carried => format!(
            "{{ ProjectionType: {kind}, NonKeyAttributes: [{}] }}",
            carried.join(", ")
        ),
    }
}

#[test]
fn each_function_is_documented_and_can_be_invoked() {
    let (readme, architecture) = (read("README.md"), read("ARCHITECTURE.md"));
    for function in functions() {
        assert!(readme.contains(&function), "{function} in README.md");
        assert!(
            architecture.contains(&format!("{function}/")),
            "{function} in ARCHITECTURE.md"
        );
        let event = read(&format!("tests/events/{function}.json"));
        serde_json::from_str::<serde_json::Value>(&event).unwrap();
    }
}

#[test]
fn the_gateway_and_cargo_lambda_watch_serve_the_same_routes() {
    let manifest = read("Cargo.toml");
    let (_, router) = manifest.split_once("[workspace.metadata.lambda.watch.router]").unwrap();
    let watched: Vec<&str> = router.lines().take_while(|line| !line.starts_with('[')).collect();
    for route in ROUTES {
        assert!(functions().contains(route.function), "{}", route.function);
        let line = watched
            .iter()
            .find(|line| line.contains(&format!("\"{}\"", route.path)));
        let line = line.unwrap_or_else(|| panic!("{} is not watched", route.path));
        let served = format!("{{ function = \"{}\", method = \"{}\" }}", route.function, route.method);
        assert!(line.contains(&served), "{line}");
    }
    let served: usize = watched.iter().map(|line| line.matches("function").count()).sum();
    assert_eq!(served, ROUTES.len());
}

#[test]
fn the_description_has_the_routes_that_need_a_token() {
    let served: BTreeSet<String> = ROUTES
        .iter()
        .filter(|route| route.authorizer == Authorizer::Jwt)
        .map(|route| format!("{} {}", route.method, route.path))
        .collect();
    assert_eq!(described_operations(), served);
}

/// The operations of `infra/openapi.yaml`: `POST /mvno/{accountId}/changesim/{newSim}`.
fn described_operations() -> BTreeSet<String> {
    let description = read("infra/openapi.yaml");
    let (_, paths) = description.split_once("\npaths:\n").unwrap();
    let mut described = BTreeSet::new();
    let mut path = "";
    let within = paths
        .lines()
        .take_while(|line| line.is_empty() || line.starts_with(' '));
    for line in within {
        if let Some(key) = line.strip_prefix("  /") {
            path = key.strip_suffix(':').unwrap();
        } else if let Some(method @ ("get" | "post" | "put" | "patch" | "delete")) =
            line.strip_prefix("    ").and_then(|key| key.strip_suffix(':'))
        {
            described.insert(format!("{} /{path}", method.to_uppercase()));
        }
    }
    described
}

#[test]
fn the_bruno_collection_has_each_operation_of_the_description_once() {
    let mut requests = Vec::new();
    for dialect in ["subscription", "account"] {
        for entry in fs::read_dir(root().join("infra/examples/bruno").join(dialect)).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            let (before, after) = text.split_once(" {\n  url: {{url}}").unwrap();
            let method = before.lines().last().unwrap().to_uppercase();
            let path = after.lines().next().unwrap().split('?').next().unwrap();
            // Bruno marks a variable part of a path with a colon.
            let parts = path.split('/').map(|part| match part.strip_prefix(':') {
                Some(name) => format!("{{{name}}}"),
                None => part.to_owned(),
            });
            requests.push(format!("{method} {}", parts.collect::<Vec<_>>().join("/")));
        }
    }
    requests.sort();
    assert_eq!(requests, described_operations().into_iter().collect::<Vec<_>>());
}

/// The values of a field that one of the tables with the columns "field" and "value" of `infra/API.md` explains.
fn explained_values(heading: &str, field: &str) -> Vec<String> {
    let document = read("infra/API.md");
    let (_, section) = document.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let start = format!("| `{field}` | ");
    let rows = section.lines().filter_map(|line| line.strip_prefix(&start));
    let cells = rows.map(|row| row.split(" | ").next().unwrap());
    let mut values: Vec<_> = cells.flat_map(|cell| cell.split(", ")).map(str::to_owned).collect();
    values.sort();
    values
}

#[test]
fn the_tables_of_next_steps_have_each_value_once() {
    let fields: [(&str, Vec<&str>); 6] = [
        ("status", Status::ALL.map(Status::as_str).to_vec()),
        ("delivery", DeliveryState::ALL.map(DeliveryState::shown).to_vec()),
        ("profile", ProfileState::ALL.map(ProfileState::as_str).to_vec()),
        ("state", EsimState::ALL.map(EsimState::as_str).to_vec()),
        (
            "request",
            ProfileRequestState::ALL.map(ProfileRequestState::shown).to_vec(),
        ),
        ("failure.code", FailureCode::ALL.map(FailureCode::as_str).to_vec()),
    ];
    // The table of statuses above the first table says the same, and `state` says more than `profile`.
    let tables = [
        ("What your client does next", "status"),
        ("What the support desk does", "profile"),
    ];
    for (heading, left_out) in tables {
        for (field, values) in &fields {
            let values: BTreeSet<_> = values.iter().map(|value| format!("`{value}`")).collect();
            let mut expected: Vec<_> = values.into_iter().collect();
            if *field == left_out {
                expected.clear();
            }
            assert_eq!(explained_values(heading, field), expected, "{heading}: {field}");
        }
    }
}

/// The stream filter of a function in the local stack's code, which writes it as `"{function}", json!(…)`.
fn local_stream_filter(function: &str) -> Value {
    let source = read("infra/local/src/stack.rs");
    let (_, rest) = source.split_once(&format!("\"{function}\",\n")).unwrap();
    let json = rest.trim_start().strip_prefix("json!(").unwrap();
    let filter = serde_json::Deserializer::from_str(json).into_iter().next();
    filter.unwrap().unwrap()
}

#[test]
fn the_template_and_the_local_stack_have_the_same_stream_filters() {
    let all = resources();
    let mappings = of_type("AWS::Lambda::EventSourceMapping");
    let deployed = mappings.values().map(|text| {
        let function = property(&all[property(text, "FunctionName: !Ref")], "CodeUri: ../target/lambda/");
        assert_eq!(text.matches("- Pattern:").count(), 1, "{function} must have one filter");
        let pattern = property(text, "- Pattern:").trim_matches('\'');
        let pattern: Value = serde_json::from_str(pattern).unwrap();
        assert_eq!(pattern, local_stream_filter(function), "{function}");
        function
    });
    let deployed: BTreeSet<&str> = deployed.collect();
    assert_eq!(deployed, BTreeSet::from(["deliver-esim", "fulfil-swap"]));
}

#[test]
fn the_template_and_the_cost_table_have_the_same_memory_sizes() {
    let money = read("tests/bench/src/money.rs");
    let megabytes = |name: &str| -> f64 {
        let gigabytes = property(&money, &format!("{name}: f64 =")).trim_end_matches(';');
        gigabytes.parse::<f64>().unwrap() * 1024.0
    };
    let programs = read("tests/bench/src/programs.rs");
    let (_, behind) = programs.split_once("const BEHIND: ").unwrap();
    let (behind, _) = behind.split_once("];\n").unwrap();
    let template = read("infra/template.yaml");
    let globals = globals(&template);
    let default = property(globals, "MemorySize:");
    for text in of_type("AWS::Serverless::Function").values() {
        let function = property(text, "CodeUri: ../target/lambda/");
        let deployed = match text.contains(" MemorySize:") {
            true => property(text, "MemorySize:"),
            false => default,
        };
        let name = match behind.contains(&format!("\"{function}\"")) {
            true => "MEMORY_BEHIND",
            false => "MEMORY",
        };
        assert_eq!(deployed.parse::<f64>().unwrap(), megabytes(name), "{function}");
    }
}

/// The anchor that GitHub gives a heading.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Each instance of `deliver-esim` sends its share of the account's rate, so it has to know how many there can be.
#[test]
fn the_setting_of_the_mails_rate_is_the_reserved_concurrency() {
    let template = read("infra/template.yaml");
    let globals = globals(&template);
    let reserved = property(
        globals,
        "ReservedConcurrentExecutions: !If [ConcurrencyIsReserved, !Ref",
    );
    let resources = resources();
    let setting = property(&resources["DeliverEsim"], "MAIL_CONCURRENCY: !Ref");
    assert_eq!(reserved.split(',').next(), Some(setting));
}

/// The settings that a function reads when it is created, apart from those of its process.
async fn settings_of(function: &str) -> BTreeSet<String> {
    let read = Arc::new(Mutex::new(BTreeSet::new()));
    let record = read.clone();
    let settings = Settings::new(move |name| {
        record.lock().unwrap().insert(name.to_owned());
        let value = match name {
            "TABLE" | "KMS_KEY_ID" => "given",
            "SMDP_URL" | "NETWORK_URL" => "https://peer.example",
            "SMDP_ADDRESS" => "smdp.example",
            "SMDP_REQUESTER_ID" => "1.2.3",
            "SMDP_SUBJECT" | "NETWORK_SUBJECT" => "CN=peer",
            "MAIL_FROM" => "esim@simswap.example",
            "BRAND" => "Simswap",
            "MAILS_A_SECOND" => "14",
            "FULFIL_SWAP" => "fulfil-swap",
            "DELIVER_ESIM" => "deliver-esim",
            _ => return None,
        };
        Some(value.to_owned())
    });
    let aws = aws::SdkConfig::builder()
        .behavior_version(aws_sdk_dynamodb::config::BehaviorVersion::latest())
        .http_client(aws::http_client(None))
        .build();
    let (clock, complete) = (ClockAndRng::real(), "the settings are complete");
    let kms = ServiceClient::new(&aws, Service::Kms);
    let store = settings
        .store(aws_sdk_dynamodb::Client::new(&aws), kms)
        .expect(complete);
    match function {
        "submit-swap" => drop(SubmitSwap::new(store, clock, &settings).expect(complete)),
        "change-sim" => drop(ChangeSim::new(store, clock, &settings).expect(complete)),
        "query-activation" => drop(QueryActivation::new(store, clock, &settings).expect(complete)),
        "manage-swap" => drop(ManageSwap::new(store, clock, &settings).expect(complete)),
        "network-events" => drop(NetworkEvents::new(store, clock, &settings).expect(complete)),
        "mail-events" => drop(MailEvents::new(store, clock, &settings).expect(complete)),
        "sweep-swaps" => {
            let lambda = ServiceClient::new(&aws, Service::Lambda);
            drop(SweepSwaps::new(store, lambda, clock, &settings).expect(complete));
        }
        "deliver-esim" => {
            let ses = aws_sdk_ses::Config::new(&aws);
            drop(DeliverEsim::new(store, &ses, clock, &settings).expect(complete));
        }
        "fulfil-swap" => {
            let secrets = ServiceClient::new(&aws, Service::SecretsManager);
            let peers = Peers::read(secrets, &settings).await.expect(complete);
            drop(FulfilSwap::new(store, peers, clock, &settings).expect(complete));
        }
        other => panic!("this test does not know the function {other}"),
    }
    let read = read.lock().unwrap();
    read.clone()
}

/// The functions that a cell of the settings table lists.
fn functions_in(cell: &str) -> BTreeSet<String> {
    let named = |text: &str| -> BTreeSet<String> {
        let names = text.split(", ").flat_map(|part| part.split(" and "));
        names.map(str::to_owned).collect()
    };
    match cell.strip_prefix("all but ") {
        Some(but) => &functions() - &named(but),
        None if cell == "all" => functions(),
        None => named(cell),
    }
}

#[tokio::test]
async fn every_setting_is_read_deployed_and_documented_for_the_same_functions() {
    let mut readers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for function in functions() {
        let mut names = settings_of(&function).await;
        // The settings that a process reads before it creates its function.
        names.extend(["LOG_LEVEL", "METRIC_NAMESPACE"].map(str::to_owned));
        let main = read(&format!("functions/{function}/src/main.rs"));
        for read in ["settings.text(\"", "settings.text_or(\""] {
            let quoted = main.split(read).skip(1);
            names.extend(quoted.map(|rest| rest.split('"').next().unwrap().to_owned()));
        }
        for name in names {
            readers.entry(name).or_default().insert(function.clone());
        }
    }

    let readme = read("infra/README.md");
    let (_, table) = readme.split_once("| | function | default |\n").unwrap();
    let table = table.split("\n\n").next().unwrap();
    let mut documented = BTreeMap::new();
    for row in table.lines().skip(1) {
        let mut cells = row.trim_matches('|').split(" | ").map(str::trim);
        let (names, functions) = (cells.next().unwrap(), functions_in(cells.next().unwrap()));
        for name in names.split(", ") {
            documented.insert(name.trim_matches('`').to_owned(), functions.clone());
        }
    }
    assert_eq!(documented, readers);

    let template = read("infra/template.yaml");
    let globals = globals(&template);
    let variables = |text: &str| -> BTreeSet<String> {
        let Some((_, after)) = text.split_once("        Variables:\n") else {
            return BTreeSet::new();
        };
        let lines = after.lines().map_while(|line| line.strip_prefix("        "));
        let names = lines.filter_map(|line| Some(line.split_once(": ")?.0.trim().to_owned()));
        names.collect()
    };
    let for_all = variables(globals.split_once("\nResources:\n").unwrap().0);
    let mut deployed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for text in of_type("AWS::Serverless::Function").values() {
        let function = property(text, "CodeUri: ../target/lambda/");
        for name in variables(text).union(&for_all) {
            let functions = deployed.entry(name.clone()).or_default();
            functions.insert(function.to_owned());
        }
    }
    assert!(deployed.len() > 15, "{deployed:?}");
    for (name, functions) in &deployed {
        assert_eq!(
            Some(functions),
            readers.get(name),
            "{name} must be set for its readers only"
        );
    }
}

#[test]
fn each_role_may_read_what_its_function_opens_and_no_more() {
    // The rows that each function of the store reads. `K#` are the data keys, which decrypt every secret.
    let words: [(&[&str], &str); 7] = [
        (
            &[
                "store.swap(",
                "store.is_same_request(",
                "store.swap_with_deliveries(",
                "store.swaps(",
                "store.delivery(",
            ],
            "A#*",
        ),
        (&["store.line(", "store.finish_late("], "L#*"),
        (&["store.phone("], "P#*"),
        (&["store.sim(", "store.sim_with_secrets("], "S#*"),
        (&["store.idempotency_record("], "I#*"),
        (&["store.brand("], "B#*"),
        (
            &[
                "store.begin(",
                "store.sim_with_secrets(",
                "store.matching_id(",
                "store.confirmation_code(",
                "store.renewed_secrets(",
                "store.seal_renewal(",
                "store.fingerprint(",
                "store.is_same_request(",
                "store.is_same_change(",
                ".presenter",
                "store.keyring()",
            ],
            "K#",
        ),
    ];
    let roles = of_type("AWS::IAM::Role");
    for (name, text) in of_type("AWS::Serverless::Function") {
        let function = property(&text, "CodeUri: ../target/lambda/");
        let mut code = String::new();
        for entry in fs::read_dir(root().join(format!("functions/{function}/src"))).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let source = fs::read_to_string(path).unwrap();
            let source = source.split("#[cfg(test)]").next().unwrap();
            code.extend(source.split_whitespace());
        }
        let reads = words
            .iter()
            .filter(|(words, _)| words.iter().any(|word| code.contains(word)));
        let reads: BTreeSet<&str> = reads.map(|(_, keys)| *keys).collect();
        let role = &roles[&format!("{name}Role")];
        let allowed: BTreeSet<&str> = match role.split_once("- Sid: ReadRows\n") {
            None => BTreeSet::new(),
            Some((_, statement)) => {
                let keys = property(statement, "ForAllValues:StringLike: { dynamodb:LeadingKeys:");
                let keys = keys.split('"').skip(1).step_by(2);
                keys.collect()
            }
        };
        assert_eq!(allowed, reads, "{function}");
        let opens = role.contains("- Sid: OpenDataKeys\n");
        assert_eq!(opens, reads.contains("K#"), "{function} may decrypt data keys");
    }
}

#[test]
fn each_row_of_security_md_names_an_existing_test() {
    let security = read("SECURITY.md");
    let rows = security.lines().filter(|line| line.starts_with("| "));
    let mut tested = 0;
    for row in rows.filter(|row| !row.contains("---") && !row.ends_with("| test |")) {
        let cell = row.trim_end_matches(" |").rsplit("| ").next().unwrap();
        let (room, test) = match cell.trim_matches('`').split_once("::") {
            Some((room, test)) => (room, format!("fn {test}()")),
            None => (cell.trim_matches('`'), "#[tokio::test".to_owned()),
        };
        assert!(read(&format!("tests/journeys/{room}.rs")).contains(&test), "{cell}");
        tested += 1;
    }
    assert!(tested > 20, "{tested} rows");
}

#[test]
fn dependencies_point_one_way() {
    let peers_and_mail: [(&str, &[&str]); 2] = [
        ("peers", &["fulfil-swap", "network-events"]),
        ("aws-sdk-ses", &["deliver-esim"]),
    ];
    for function in functions() {
        let manifest = read(&format!("functions/{function}/Cargo.toml"));
        let (_, dependencies) = manifest.split_once("[dependencies]").unwrap();
        let uses = |name: &str| {
            dependencies
                .lines()
                .any(|line| line.split(['.', ' ']).next() == Some(name))
        };
        for other in functions() {
            assert!(!uses(&other), "{function} uses {other}");
        }
        for (dependency, users) in peers_and_mail {
            assert_eq!(
                uses(dependency),
                users.contains(&function.as_str()),
                "{function}, {dependency}"
            );
        }
    }
    let domain = read("shared/domain/Cargo.toml");
    for absent in ["serde", "aws", "http", "tokio", "ring", "store", "edge"] {
        assert!(!domain.contains(absent), "the domain uses {absent}");
    }
}

#[test]
fn each_file_says_in_its_first_line_what_it_holds() {
    let files = files_with(&["rs"]);
    for path in &files {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.starts_with("//! "), "{}", path.display());
    }
    assert!(files.len() > 50, "{} files", files.len());
}

/// The repository's files with one of these extensions, without the output of builds and package managers.
fn files_with(extensions: &[&str]) -> Vec<PathBuf> {
    let mut folders = vec![root()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let extension = path.extension().unwrap_or_default().to_string_lossy();
            if path.is_dir() {
                let generated = name == "target" || name == "node_modules" || name == "docs";
                if !generated && (!name.starts_with('.') || name == ".ci" || name == ".github") {
                    folders.push(path);
                }
            } else if extensions.contains(&&*extension) {
                files.push(path);
            }
        }
    }
    files
}

#[test]
fn the_front_page_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 200, "README.md has {lines} lines");
}

#[test]
fn no_document_is_cited_that_is_not_here() {
    let texts = ["rs", "md", "toml", "yaml", "yml", "py", "js"];
    // Joined here, so that this file does not contain the phrases.
    let absent = [
        ["contract", " section"],
        ["contract", ".md"],
        ["design", ".md"],
        ["style", ".md"],
        ["seed", " a"],
        ["seed", " b"],
        ["seed", "'s "],
    ];
    let absent = absent.map(|parts| parts.concat());
    for path in files_with(&texts) {
        let text = fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            for name in &absent {
                let at = lower.find(name.as_str());
                let whole = at.is_some_and(|at| {
                    let after = lower[at + name.len()..].chars().next();
                    name.ends_with(' ') || !after.is_some_and(char::is_alphanumeric)
                });
                let place = format!("{}:{}", path.display(), number + 1);
                assert!(!whole, "{place} cites {name:?}");
            }
        }
    }
    for path in files_with(&["md"]) {
        let text = fs::read_to_string(&path).unwrap();
        for link in text.split("](").skip(1) {
            let link = link.split(')').next().unwrap_or_default();
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match file {
                "" => path.clone(),
                file => path.with_file_name(file),
            };
            assert!(target.exists(), "{} links to {link}", path.display());
            if target.extension().is_some_and(|extension| extension == "md") && !anchor.is_empty() {
                let linked = fs::read_to_string(&target).unwrap();
                let headings = linked.lines().filter(|line| line.starts_with('#'));
                let found = headings.map(anchor_of).any(|heading| heading == anchor);
                assert!(found, "{} links to {link}", path.display());
            }
        }
    }
}
