//! Who may use whom: between crates, inside the core, between the services of the daemon.

use std::collections::BTreeSet;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::source::{self, none};

/// The crates of the project and which of them each may depend on.
const CRATE_ARROWS: [(&str, &[&str]); 5] = [
    ("p2p_sync_core", &[]),
    ("p2p_sync_proto", &[]),
    ("p2p_sync_daemon", &["p2p_sync_core", "p2p_sync_proto"]),
    ("syncctl", &["p2p_sync_core", "p2p_sync_proto"]),
    (
        "p2p_sync_tests",
        &["p2p_sync_core", "p2p_sync_daemon", "p2p_sync_proto", "syncctl"],
    ),
];

/// What the core may depend on: hashing, signing, encoding, errors. Nothing that does IO or knows a runtime.
const CORE_MAY_USE: [&str; 8] = [
    "blake3",
    "data-encoding",
    "ed25519-dalek",
    "hmac",
    "minicbor",
    "proptest",
    "sha2",
    "thiserror",
];

/// What the core must not name: files, sockets, clocks, threads, the environment, runtimes.
const CORE_MUST_NOT_NAME: [&str; 16] = [
    "std::fs",
    "std::net",
    "std::env",
    "std::process",
    "std::thread",
    "std::io",
    "std::os",
    "SystemTime",
    "Instant::now",
    "std::time::Instant",
    "HashMap",
    "HashSet",
    "tokio",
    "libp2p",
    "rusqlite",
    "rand::",
];

/// Modules of the core, each using only those before it.
const CORE_ORDER: [&str; 15] = [
    "ids",
    "rel_path",
    "time",
    "encoding",
    "merkle",
    "content",
    "tree",
    "access",
    "signature",
    "lock",
    "ledger",
    "fold",
    "ticket",
    "ignore",
    "engine",
];

/// The daemon's services: none may import another.
const SERVICES: [&str; 9] = [
    "control",
    "journal",
    "network",
    "scanner",
    "service_manager",
    "store",
    "transfer",
    "watcher",
    "worktree",
];

/// The one exception: an install is its intent, its rename and its note that it is done, one act over both.
const SERVICE_MAY_USE: (&str, &str) = ("worktree", "journal");

/// What wires the services together and may import all of them; no service may import it.
const WIRING: [&str; 11] = [
    "content_index",
    "daemon",
    "demo",
    "event_loop",
    "history",
    "install_task",
    "ledger",
    "lib",
    "main",
    "scan_task",
    "versions_task",
];

#[test]
fn crates_depend_only_along_the_arrows() -> Result<()> {
    let metadata = metadata()?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists packages")?;
    let names: BTreeSet<&str> = packages
        .iter()
        .filter_map(|package| package["name"].as_str())
        .collect();
    let expected: BTreeSet<&str> = CRATE_ARROWS.iter().map(|(name, _)| *name).collect();
    ensure!(names == expected, "The crates are {names:?} and not {expected:?}");
    let mut findings = Vec::new();
    for (name, allowed) in CRATE_ARROWS {
        for dependency in dependencies(packages, name) {
            if expected.contains(dependency) && !allowed.contains(&dependency) {
                findings.push(format!("{name} -> {dependency}"));
            }
        }
    }
    none(
        "cli -> proto <- daemon -> core, cli -> core, tests -> all; no other arrow",
        &findings,
    )
}

/// Where the CLI uses the core: a proof must be checked without any daemon.
const CLI_MAY_USE_CORE: &str = "cli/src/cmds/ledger/check_proof.rs";

#[test]
fn the_cli_uses_the_core_to_check_proofs_only() -> Result<()> {
    let mut findings = Vec::new();
    for path in source::rust_files("cli/src")? {
        let uses = source::read(&path)?.contains("p2p_sync_core");
        if uses != (path.as_os_str() == CLI_MAY_USE_CORE) {
            findings.push(path.display().to_string());
        }
    }
    none("Everything else goes through proto", &findings)
}

#[test]
fn core_depends_only_on_its_list() -> Result<()> {
    let metadata = metadata()?;
    let packages = metadata["packages"]
        .as_array()
        .context("cargo metadata lists packages")?;
    let used = dependencies(packages, "p2p_sync_core");
    let findings: Vec<String> = used
        .difference(&CORE_MAY_USE.into())
        .map(|name| (*name).to_owned())
        .collect();
    none("Not on the core's list of dependencies", &findings)
}

#[test]
fn core_names_no_file_socket_clock_or_runtime() -> Result<()> {
    let mut findings = Vec::new();
    // An example is a command-line tool that uses the core, and no part of it.
    let mut files = source::rust_files("daemon/core")?;
    files.retain(|path| !path.starts_with("daemon/core/examples"));
    for path in files {
        let text = source::read(&path)?;
        for (number, line) in source::without_tests(&text) {
            let code = source::code(line);
            let named = CORE_MUST_NOT_NAME.iter().filter(|banned| code.contains(**banned));
            findings.extend(named.map(|banned| format!("{}:{number}: {banned}", path.display())));
        }
    }
    none(
        "The core does no IO, reads no clock and iterates in a fixed order",
        &findings,
    )
}

#[test]
fn core_modules_use_only_those_before_them() -> Result<()> {
    let rank = |name: &str| CORE_ORDER.iter().position(|module| *module == name);
    let mut findings = Vec::new();
    for edge in edges("daemon/core/src")? {
        let (Some(from), Some(to)) = (rank(&edge.from), rank(&edge.to)) else {
            continue;
        };
        if to > from {
            findings.push(format!("{}: {} uses {}", edge.place, edge.from, edge.to));
        }
    }
    none(
        "A module of the core uses only those before it in CORE_ORDER",
        &findings,
    )
}

#[test]
fn core_order_names_all_modules() -> Result<()> {
    let known: BTreeSet<&str> = CORE_ORDER.into();
    let unknown: Vec<String> = modules("daemon/core/src")?
        .into_iter()
        .filter(|name| name != "lib" && !known.contains(name.as_str()))
        .collect();
    none("Modules that CORE_ORDER does not name", &unknown)
}

#[test]
fn services_do_not_import_each_other() -> Result<()> {
    let is_service = |name: &str| SERVICES.contains(&name);
    let mut findings = Vec::new();
    for edge in edges("daemon/src")? {
        if (edge.from.as_str(), edge.to.as_str()) == SERVICE_MAY_USE {
            continue;
        }
        let crosses = is_service(&edge.from) && edge.to != edge.from;
        if crosses && (is_service(&edge.to) || WIRING.contains(&edge.to.as_str())) {
            findings.push(format!("{}: {} uses {}", edge.place, edge.from, edge.to));
        }
        let shared = !is_service(&edge.from) && !WIRING.contains(&edge.from.as_str());
        if shared && (is_service(&edge.to) || WIRING.contains(&edge.to.as_str())) {
            findings.push(format!(
                "{}: shared module {} uses {}",
                edge.place, edge.from, edge.to
            ));
        }
    }
    none(
        "Services do not know each other; daemon.rs and event_loop.rs wire them",
        &findings,
    )
}

#[test]
fn imports_are_found_in_all_their_forms() {
    let check = |text: &str, expected: &[&str]| {
        let found: Vec<String> = imported(text).into_iter().map(|(_, name)| name).collect();
        assert_eq!(found, expected, "{text}");
    };
    check("use crate::store::Store;", &["store"]);
    check("use crate::store;", &["store"]);
    check("let x = crate::paths::socket();", &["paths"]);
    check(
        "use crate::{store, paths::{self, Paths}, network as n};",
        &["store", "paths", "network"],
    );
    check(
        "use crate::{\n    store::{\n        Store,\n    },\n    journal::Journal,\n};",
        &["store", "journal"],
    );
    check("// use crate::store;\nuse other_crate::store;", &[]);
}

/// One use of a module by another.
struct Edge {
    from: String,
    to: String,
    place: String,
}

/// Returns the uses `crate::NAME` of all files of a crate, by the top-level modules they stand in.
fn edges(src: &str) -> Result<Vec<Edge>> {
    let mut edges = Vec::new();
    let known = modules(src)?;
    for path in source::rust_files(src)? {
        let below = path
            .strip_prefix(src)
            .context("The file lies below the directory listed")?;
        let first = below
            .iter()
            .next()
            .context("A file has a name")?
            .to_string_lossy();
        let from = first.trim_end_matches(".rs").to_owned();
        let text = source::read(&path)?;
        for (line, to) in imported(&text) {
            if known.contains(&to) {
                edges.push(Edge {
                    from: from.clone(),
                    to,
                    place: format!("{}:{line}", path.display()),
                });
            }
        }
    }
    Ok(edges)
}

/// Returns the names of a crate's top-level modules.
fn modules(src: &str) -> Result<BTreeSet<String>> {
    let files = source::rust_files(src)?;
    let tops = files
        .iter()
        .filter_map(|path| path.strip_prefix(src).ok())
        .filter(|below| below.iter().count() == 1);
    Ok(tops
        .map(|below| below.to_string_lossy().trim_end_matches(".rs").to_owned())
        .collect())
}

/// Returns the names that follow `crate::`, groups in braces taken apart, with their lines.
fn imported(text: &str) -> Vec<(usize, String)> {
    let code: String = text
        .lines()
        .map(|line| format!("{}\n", source::code(line)))
        .collect();
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        let names = if let Some(group) = rest.strip_prefix('{') {
            group_heads(group)
        } else {
            vec![head(rest)]
        };
        found.extend(
            names
                .into_iter()
                .filter(|name| !name.is_empty())
                .map(|name| (line, name)),
        );
    }
    found
}

/// Returns the first names of the parts of a group, given what follows its opening brace.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' if depth > 0 => {}
            '}' | ',' => {
                heads.push(head(group[start..at].trim_start()));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    heads
}

fn head(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

fn dependencies<'a>(packages: &'a [Value], name: &str) -> BTreeSet<&'a str> {
    let package = packages.iter().find(|package| package["name"] == name);
    let listed = package.and_then(|package| package["dependencies"].as_array());
    listed
        .into_iter()
        .flatten()
        .filter_map(|dependency| dependency["name"].as_str())
        .collect()
}

fn metadata() -> Result<Value> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args([
            "metadata",
            "--format-version=1",
            "--no-deps",
            "--offline",
            "--locked",
        ])
        .current_dir(source::root())
        .output()
        .context("Running cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("Reading cargo metadata")
}
