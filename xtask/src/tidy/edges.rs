//! Who may import whom. ARCHITECTURE.md shows the same table and says why.

use std::{fs, path::Path};

use anyhow::Context;
use serde_json::Value;

use super::Finding;

/// One package: which of ours it may use, and which of others' it must never see.
struct Rule {
    package: &'static str,
    ours: &'static [&'static str],
    never: &'static [&'static str],
}

const RULES: &[Rule] = &[
    Rule {
        package: "godwit-types",
        ours: &[],
        never: &["tokio", "tonic", "nix"],
    },
    Rule {
        package: "godwit-proto",
        ours: &["godwit-types"],
        never: &["raft"],
    },
    Rule {
        package: "godwit-daemon",
        ours: &["godwit-proto", "godwit-types"],
        never: &["raft"],
    },
    Rule {
        package: "godwit-runtime",
        ours: &["godwit-types", "godwit-interpose"],
        never: &["tonic", "raft", "prost"],
    },
    Rule {
        package: "godwit-interpose",
        ours: &[],
        never: &["tokio", "tonic", "raft", "serde", "nix"],
    },
    Rule {
        package: "godwit-agent",
        ours: &[
            "godwit-runtime",
            "godwit-daemon",
            "godwit-proto",
            "godwit-types",
        ],
        never: &["raft"],
    },
    Rule {
        package: "godwit-core",
        ours: &["godwit-types"],
        never: &["tokio", "tonic", "raft", "rand", "getrandom", "time"],
    },
    Rule {
        package: "godwit-controller",
        ours: &[
            "godwit-core",
            "godwit-daemon",
            "godwit-proto",
            "godwit-types",
        ],
        never: &["nix"],
    },
    Rule {
        package: "godwit-model",
        // A checker of both sides of the hand-over: it may see both.
        ours: &["godwit-agent", "godwit-core", "godwit-types"],
        never: &["tokio", "tonic", "raft", "nix", "rand", "time"],
    },
    Rule {
        package: "godwit-sim",
        ours: &["godwit-agent", "godwit-core", "godwit-types"],
        never: &["tokio", "tonic", "nix", "rand", "getrandom", "time"],
    },
    Rule {
        package: "godwit-cli",
        ours: &["godwit-proto", "godwit-types"],
        never: &["raft", "redb", "nix"],
    },
    Rule {
        package: "godwit-tests",
        ours: &["godwit-core", "godwit-proto", "godwit-types"],
        never: &["raft"],
    },
    Rule {
        package: "xtask",
        ours: &[],
        never: &["tokio", "tonic"],
    },
];

/// Checks the packages that `cargo metadata --no-deps` lists.
pub fn check(root: &Path, metadata: &Value) -> anyhow::Result<Vec<Finding>> {
    let packages = metadata["packages"]
        .as_array()
        .context("`cargo metadata` lists no packages")?;
    let mut findings = Vec::new();
    for package in packages {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let text = fs::read_to_string(manifest)
            .with_context(|| format!("can't read `{}`", manifest.display()))?;
        let path = manifest.strip_prefix(root).unwrap_or(manifest);
        findings.extend(
            of_package(package)
                .into_iter()
                .map(|(dependency, what)| Finding {
                    path: path.to_string_lossy().into_owned(),
                    line: line_of(&text, &dependency),
                    what,
                }),
        );
    }
    Ok(findings)
}

/// The dependencies of a package that it must not have, and why.
fn of_package(package: &Value) -> Vec<(String, String)> {
    let name = package["name"].as_str().unwrap_or_default();
    let Some(rule) = RULES.iter().find(|rule| rule.package == name) else {
        let what = format!("package `{name}` is not in the table of allowed edges");
        return vec![(name.to_owned(), what)];
    };
    let mut findings = Vec::new();
    for dependency in package["dependencies"].as_array().into_iter().flatten() {
        let on = dependency["name"].as_str().unwrap_or_default();
        // A package of ours is one with a path; a package may use its own library in its tests.
        let ours = dependency["path"].is_string();
        if ours && on != name && !rule.ours.contains(&on) {
            findings.push((on.to_owned(), format!("`{name}` may not use `{on}`")));
        } else if !ours && rule.never.iter().any(|never| is_of(on, never)) {
            findings.push((on.to_owned(), format!("`{name}` must never see `{on}`")));
        }
    }
    findings
}

/// The crate itself or one of its family: `tokio-stream` brings `tokio` in.
fn is_of(on: &str, never: &str) -> bool {
    on == never
        || on
            .strip_prefix(never)
            .is_some_and(|rest| rest.starts_with('-'))
}

/// The line of the manifest that names the dependency; 1 when a table holds it.
fn line_of(manifest: &str, dependency: &str) -> usize {
    let names = |line: &str| {
        line.trim_start()
            .strip_prefix(dependency)
            .is_some_and(|rest| rest.starts_with([' ', '.', '=']))
    };
    manifest
        .lines()
        .position(names)
        .map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn whats(package: &Value) -> Vec<String> {
        of_package(package)
            .into_iter()
            .map(|(_, what)| what)
            .collect()
    }

    #[test]
    fn an_edge_that_the_table_does_not_have_is_found() {
        let package = json!({ "name": "godwit-cli", "dependencies": [
            { "name": "godwit-proto", "path": "/w/proto" },
            { "name": "godwit-core", "path": "/w/controller/core", "kind": "dev" },
            { "name": "clap" },
        ]});
        assert_eq!(whats(&package), ["`godwit-cli` may not use `godwit-core`"]);
    }

    #[test]
    fn a_crate_and_its_family_are_kept_out() {
        let package = json!({ "name": "godwit-core", "dependencies": [
            { "name": "godwit-types", "path": "/w/proto/types" },
            { "name": "tokio-stream" },
            { "name": "raft" },
            { "name": "serde" },
        ]});
        assert_eq!(
            whats(&package),
            [
                "`godwit-core` must never see `tokio-stream`",
                "`godwit-core` must never see `raft`",
            ]
        );
        assert!(!is_of("timer", "time"));
    }

    #[test]
    fn a_package_outside_the_table_is_found() {
        let package = json!({ "name": "godwit-new", "dependencies": [] });
        assert_eq!(whats(&package).len(), 1);
    }

    #[test]
    fn the_finding_points_at_the_manifests_line() {
        let manifest =
            "[package]\nname = \"x\"\n[dependencies]\nraft-proto = \"1\"\nraft.workspace = true\n";
        assert_eq!(line_of(manifest, "raft"), 5);
        assert_eq!(line_of(manifest, "absent"), 1);
    }
}
