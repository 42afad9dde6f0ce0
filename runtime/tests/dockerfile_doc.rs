//! docs/dockerfile.md names a test for each form of an instruction: each of them is there.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names of all functions that are marked as tests.
fn tests(root: &Path) -> BTreeSet<String> {
    let mut files = Vec::new();
    for package in ["agent", "controller", "proto", "runtime", "tests"] {
        sources(&root.join(package), &mut files);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let mut marked = false;
        for line in text.lines().map(str::trim) {
            if line.starts_with("#[test]") || line.starts_with("#[tokio::test") {
                marked = true;
            } else if let Some(rest) = line.strip_prefix("fn ").or(line.strip_prefix("async fn ")) {
                if marked {
                    names.insert(rest.split('(').next().unwrap_or_default().to_owned());
                }
                marked = false;
            }
        }
    }
    names
}

#[test]
fn every_test_that_the_table_of_instructions_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let text = fs::read_to_string(root.join("docs/dockerfile.md")).unwrap();
    let tests = tests(root);
    let mut named = 0;
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let Some(last) = row.trim_end_matches('|').rsplit('|').next() else {
            continue;
        };
        let Some(name) = last
            .trim()
            .strip_prefix('`')
            .and_then(|name| name.strip_suffix('`'))
        else {
            continue;
        };
        named += 1;
        assert!(
            tests.contains(name),
            "no test `{name}`, which this row names: {row}"
        );
    }
    assert!(named > 25, "the table has {named} rows");
    for instruction in [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ] {
        let row = format!("| `{instruction}` |");
        assert!(text.contains(&row), "no row for {instruction}");
    }
}
