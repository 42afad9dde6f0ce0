//! `docs/docker-compat.md` says what the program takes, no more and no less.

use std::collections::{BTreeMap, BTreeSet};

use clap::CommandFactory;

use crate::options::Options;

const PAGE: &str = include_str!("../../../docs/docker-compat.md");

/// What a page says of each verb, and of each flag of a verb.
struct Page {
    verbs: BTreeMap<String, String>,
    flags: BTreeMap<String, BTreeMap<String, String>>,
}

fn page() -> Page {
    let mut page = Page {
        verbs: BTreeMap::new(),
        flags: BTreeMap::new(),
    };
    let mut verb: Option<String> = None;
    for line in PAGE.lines() {
        if let Some(heading) = line.strip_prefix("### `") {
            verb = Some(heading.trim_end_matches('`').to_owned());
        } else if line.starts_with("## ") {
            verb = None;
        }
        let Some((name, rest)) = line
            .strip_prefix("| `")
            .and_then(|line| line.split_once("` |"))
        else {
            continue;
        };
        let there = rest.split('|').next().unwrap_or_default().trim().to_owned();
        assert!(
            ["yes", "no", "own"].contains(&there.as_str()),
            "`{name}` is `{there}`"
        );
        let table = match &verb {
            Some(verb) => page.flags.entry(verb.clone()).or_default(),
            None => &mut page.verbs,
        };
        let old = table.insert(name.to_owned(), there);
        assert_eq!(old, None, "`{name}` has two lines");
    }
    page
}

/// The long names of what a verb takes of its own.
fn flags_of(verb: &str) -> BTreeSet<String> {
    let command = Options::command();
    let found = command.find_subcommand(verb);
    let found = found.unwrap_or_else(|| panic!("no verb `{verb}`"));
    let flags = found.get_arguments().filter(|flag| !flag.is_hide_set());
    flags
        .filter_map(|flag| flag.get_long())
        .map(|long| format!("--{long}"))
        .collect()
}

#[test]
fn every_verb_of_the_page_is_as_it_says() {
    let command = Options::command();
    for (verb, there) in page().verbs {
        let found = command.find_subcommand(&verb).is_some();
        assert_eq!(found, there != "no", "`{verb}` is said to be `{there}`");
    }
}

#[test]
fn every_flag_is_on_the_page_and_is_as_it_says() {
    for (verb, said) in page().flags {
        let taken = flags_of(&verb);
        for (flag, there) in &said {
            assert_eq!(
                taken.contains(flag),
                there != "no",
                "`{verb} {flag}` is said to be `{there}`"
            );
        }
        let unsaid: Vec<_> = taken
            .iter()
            .filter(|flag| !said.contains_key(*flag))
            .collect();
        assert!(unsaid.is_empty(), "`{verb}`: not on the page: {unsaid:?}");
    }
}

#[test]
fn what_is_refused_says_why() {
    for line in PAGE.lines().filter(|line| line.contains("` | no |")) {
        let reason = line
            .trim_end_matches(" |")
            .rsplit('|')
            .next()
            .unwrap_or_default();
        assert!(reason.trim().len() > 10, "no reason: {line}");
    }
}
