//! What Cargo cannot enforce: the house is as its documents say.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use local::gateway::ROUTES;

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
    let (_, router) = manifest
        .split_once("[workspace.metadata.lambda.watch.router]")
        .unwrap();
    let watched: Vec<&str> = router
        .lines()
        .take_while(|line| !line.starts_with('['))
        .collect();
    for route in ROUTES {
        assert!(functions().contains(route.function), "{}", route.function);
        let line = watched
            .iter()
            .find(|line| line.contains(&format!("\"{}\"", route.path)));
        let line = line.unwrap_or_else(|| panic!("{} is not watched", route.path));
        let served = format!(
            "{{ function = \"{}\", method = \"{}\" }}",
            route.function, route.method
        );
        assert!(line.contains(&served), "{line}");
    }
    let served: usize = watched
        .iter()
        .map(|line| line.matches("function").count())
        .sum();
    assert_eq!(served, ROUTES.len());
}

#[test]
fn arrows_point_one_way() {
    let peers_and_mail: [(&str, &[&str]); 2] = [
        ("network", &["fulfil-swap", "network-events"]),
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
fn each_room_says_at_its_door_what_is_in_it() {
    let mut folders = ["functions", "shared", "infra", "tests"]
        .map(|folder| root().join(folder))
        .to_vec();
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                seen += 1;
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.starts_with("//! "), "{}", path.display());
            }
        }
    }
    assert!(seen > 50, "{seen} files");
}
