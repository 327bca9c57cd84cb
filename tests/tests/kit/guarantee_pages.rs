//! The pages in `docs/guarantees` say what is there: their command lines are understood, the tests that they name exist, and their
//! links lead somewhere. Their Rust is compiled with the documentation of `correio-consumer`.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use correio_tests::programs::{Program, program};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn each_command_line_is_understood_by_its_program() {
    let programs = program("consumer").parent().expect("a folder").to_owned();
    let folder = tempfile::tempdir().expect("a folder");
    // What the lines read: they are written to be run in the repository.
    std::os::unix::fs::symlink(root().join("lab"), folder.path().join("lab")).expect("a link");
    let mut seen = 0;
    for page in pages() {
        for line in fenced(&text(&page), "sh").lines().filter(|line| PROGRAMS.iter().any(|cargo| line.contains(cargo)))
        {
            // By a shell, as a reader's would take it apart. The broker's address is none, and is looked at when the arguments are
            // understood: so nobody waits for a broker.
            let script = format!("cargo() {{ name=$1; shift; \"$PROGRAMS/$name\" \"$@\"; }}; cd \"$FOLDER\"; {line}");
            fs::write(folder.path().join("later.ndjson"), "").expect("what an earlier line has kept");
            let ran = Program::at("sh")
                .args(["-c", &script])
                .env("PROGRAMS", &programs)
                .env("FOLDER", folder.path())
                .env("AMQP_URL", NO_ADDRESS)
                .finish(PATIENCE)
                .await;
            let understood = ran.code == Some(0) || ran.code == Some(2) && ran.stderr.contains("AMQP_URL");
            assert!(understood, "{}: {line}\n{ran}", page.display());
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen} command lines found: they begin with {PROGRAMS:?} in blocks of sh");
}

#[test]
fn each_test_that_is_named_exists() {
    let sources: Vec<String> = [
        "tests/tests",
        "tests/src",
        "message/tests",
        "broker-config/src",
        "guarantees/tests",
        "consumer/src",
        "producer/src",
        "lab/tests",
        "lab/src",
    ]
    .iter()
    .flat_map(|folder| files(&root().join(folder), "rs"))
    .map(|file| text(&file))
    .collect();
    for page in pages() {
        let mut named = 0;
        for name in quoted(&text(&page)).iter().filter(|name| is_a_sentence(name)) {
            let function = format!("fn {name}(");
            assert!(sources.iter().any(|source| source.contains(&function)), "{}: {name}", page.display());
            named += 1;
        }
        assert!(named > 0 || page.ends_with("README.md"), "{} names no test", page.display());
    }
}

#[test]
fn each_link_leads_to_a_file() {
    for page in pages() {
        let text = text(&page);
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            let there = link.starts_with("http") || page.parent().expect("a folder").join(path).exists();
            assert!(there, "{}: {link}", page.display());
        }
    }
}

#[test]
fn there_is_a_page_for_each_guarantee_and_the_index_leads_to_it() {
    let index = text(&folder().join("README.md"));
    for number in 1..=9 {
        let of_it = format!("{number}-");
        let page = pages().into_iter().find(|page| file_name(page).starts_with(&of_it)).expect(&of_it);
        assert!(index.contains(&format!("]({})", file_name(&page))), "{}", page.display());
        let text = text(&page);
        for heading in ["## How to have it", "## How it is kept", "## What it costs", "## What it does not promise"] {
            assert!(text.contains(heading), "{} has no “{heading}”", page.display());
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn folder() -> PathBuf {
    root().join("docs/guarantees")
}

fn pages() -> Vec<PathBuf> {
    let pages = files(&folder(), "md");
    assert!(pages.len() >= 10, "{pages:?}");
    pages
}

/// Those with this extension in the folder and the folders in it.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|its| its == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn text(file: &Path) -> String {
    fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

fn file_name(file: &Path) -> String {
    file.file_name().expect("a name").to_string_lossy().into_owned()
}

/// What stands in fenced blocks of this language.
fn fenced(page: &str, language: &str) -> String {
    let begin = format!("```{language}\n");
    page.split(&begin).skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

/// What stands between backticks, fenced blocks aside.
fn quoted(page: &str) -> BTreeSet<String> {
    let prose = page.split("```").step_by(2);
    prose.flat_map(|prose| prose.split('`').skip(1).step_by(2)).map(str::to_owned).collect()
}

/// As tests are named.
fn is_a_sentence(name: &str) -> bool {
    name.matches('_').count() >= 3 && name.chars().all(|c| c == '_' || c.is_ascii_lowercase() || c.is_ascii_digit())
}

const PROGRAMS: [&str; 3] = ["cargo producer ", "cargo consumer ", "cargo broker "];
const NO_ADDRESS: &str = "no address";
