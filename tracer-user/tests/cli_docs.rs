//! docs/cli.md is the help of every verb, as clap prints it; the README's list of endings is that of the table of formats, and docs/metrics.md that
//! of the families. To write them anew: `UPDATE_GOLDEN=1 cargo test -p tracer-user --test cli_docs`.

#![allow(clippy::unwrap_used, reason = "tests")]

use clap::CommandFactory as _;
use memtrail::cli::Cli;
use memtrail::output::{Source, format};
use std::fmt::Write as _;
use std::path::Path;

const COLUMNS: usize = 100;

const HEAD: &str = "\
# Command line

Made from the program's own help; a test compares them. To write it anew: `UPDATE_GOLDEN=1 cargo test -p tracer-user --test cli_docs`.

## Units

A bare letter, or one with an `i`, is a power of 1024: `64K`, `64Ki` and `64KiB` are 65,536 bytes. A letter with `B` is a power of 1000: `64kB` is
64,000 bytes, `64MB` is 64,000,000. A bare number is bytes. Output is binary (`64.0 MiB`), but for the cost line, which is in MB.
Durations need units: `30s`, `5m`, `1h30m`, `500ms`.

## Paths of cgroups

`--cgroup` matches the full path below the root of the memory hierarchy. `*` stays within a component, `**` crosses. A match includes everything
below it, and cgroups made later. A path without stars must exist; a pattern that matches nothing until the end is an error.
";

fn help() -> String {
    let mut text = HEAD.to_owned();
    let mut cli = Cli::command().term_width(COLUMNS);
    cli.build();
    writeln!(text, "\n## memtrail\n\n```text\n{}\n```", trimmed(&cli.render_long_help().to_string())).unwrap();
    let verbs: Vec<String> = cli
        .get_subcommands()
        .filter(|verb| !verb.is_hide_set() && verb.get_name() != "help")
        .map(|verb| verb.get_name().to_owned())
        .collect();
    for name in verbs {
        let verb = cli.find_subcommand_mut(&name).unwrap();
        let help = verb.clone().term_width(COLUMNS).render_long_help().to_string();
        writeln!(text, "\n## memtrail {name}\n\n```text\n{}\n```", trimmed(&help)).unwrap();
    }
    text
}

/// Without spaces at ends of lines, which clap leaves and editors remove.
fn trimmed(text: &str) -> String {
    text.trim_end().lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_committed_help_is_the_programs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/cli.md");
    let help = help();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &help).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == help, "docs/cli.md is stale: run UPDATE_GOLDEN=1 cargo test -p tracer-user --test cli_docs");
}

/// What stands before the endings in the README's row of `record`, and what after.
const README_LIST: (&str, &str) = ("| `memtrail record` | trace the host, some cgroups, or a command; print the summary; write `", "` |");

#[test]
fn the_readme_lists_the_endings_of_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(README_LIST.0).expect("the README has a row for record");
    let (listed, after) = rest.split_once(README_LIST.1).expect("the row has an end");
    let endings = format::endings(Source::Trace);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, [before, README_LIST.0, &endings, README_LIST.1, after].concat()).unwrap();
    } else {
        assert_eq!(listed, endings, "README.md is stale: run UPDATE_GOLDEN=1 cargo test -p tracer-user --test cli_docs");
    }
}

#[test]
fn the_committed_metrics_are_the_programs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = text.split_once("<!-- families -->\n").expect("docs/metrics.md has a place for the families");
    let (listed, after) = rest.split_once("<!-- end -->").expect("the place has an end");
    let families = memtrail::output::metrics::families::markdown();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, [before, "<!-- families -->\n", &families, "<!-- end -->", after].concat()).unwrap();
    } else {
        assert_eq!(listed, families, "docs/metrics.md is stale: run UPDATE_GOLDEN=1 cargo test -p tracer-user --test cli_docs");
    }
}

#[test]
fn every_verb_has_examples() {
    let mut cli = Cli::command();
    cli.build();
    for verb in cli.get_subcommands_mut().filter(|verb| !verb.is_hide_set() && verb.get_name() != "help") {
        let help = verb.render_long_help().to_string();
        assert!(help.contains("Examples:\n") && help.contains(&format!("memtrail {} ", verb.get_name())), "{}", verb.get_name());
    }
}

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}
