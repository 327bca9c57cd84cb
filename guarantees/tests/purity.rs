//! The machines stay pure: what would bring in a network, a runtime or chance is not among their dependencies.

use std::{env, process::Command};

#[test]
fn the_guarantees_depend_on_no_runtime_no_client_and_no_randomness() {
    assert_pure("correio-guarantees");
}

#[test]
fn the_envelope_depends_on_no_runtime_no_client_and_no_randomness() {
    assert_pure("correio-message");
}

fn assert_pure(package: &str) {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let tree = Command::new(cargo)
        .args(["tree", "--package", package, "--edges", "normal", "--prefix", "none", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let names: Vec<_> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&package), "this is not the tree of {package}:\n{tree}");
    let impure: Vec<_> = names.iter().filter(|name| IMPURE.iter().any(|start| name.starts_with(start))).collect();
    assert!(impure.is_empty(), "{package} depends on {impure:?}");
}

/// How the names begin of what a machine may not reach.
const IMPURE: [&str; 6] = ["tokio", "lapin", "amqprs", "rand", "async-rs", "deadpool"];
