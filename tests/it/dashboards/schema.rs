//! The dashboards against the types of Grafana itself (`tests/grafana`).

use std::path::Path;
use std::process::{Command, Output};

use super::grafana::DASHBOARDS;
use super::{FOLDER, read};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn check(files: &[&Path]) -> Output {
    let packages = Path::new(ROOT).join("target/node");
    assert!(
        packages.join("node_modules/@grafana/schema").is_dir(),
        "tests/run installs the packages that are missing in {packages:?}"
    );
    let mut command = Command::new("node");
    command.arg(Path::new(ROOT).join("tests/grafana/check.mjs")).arg(packages).args(files);
    command.output().unwrap_or_else(|error| panic!("node cannot be run, install it: {error}"))
}

#[test]
fn grafana_knows_every_key_of_the_dashboards() {
    let output = check(&DASHBOARDS.map(|file| Path::new(FOLDER).join(file)).each_ref().map(|path| path.as_path()));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

// A test that cannot fail is none: a misspelt key is found at each level, and so is a value of another type.
#[test]
fn a_misspelt_key_is_found() {
    let damages = [
        ("\"fiscalYearStartMonth\"", "\"fiscalYearStart\""),
        ("\"legendFormat\"", "\"legend\""),
        ("\"colorMode\"", "\"colourMode\""),
        ("\"drawStyle\": \"line\"", "\"drawStyle\": \"lines\""),
        ("\"iconColor\"", "\"iconColour\""),
        ("\"graphTooltip\": 1", "\"graphTooltip\": \"1\""),
    ];
    let directory = tempfile::tempdir().unwrap();
    let files: Vec<_> = damages
        .iter()
        .enumerate()
        .map(|(number, (from, to))| {
            let file = directory.path().join(format!("{number}.json"));
            let text = read("fleet.json");
            assert!(text.contains(from), "no {from} in fleet.json");
            std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
            file
        })
        .collect();
    let output = check(&files.iter().map(|file| file.as_path()).collect::<Vec<_>>());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    for (file, (_, to)) in files.iter().zip(damages) {
        assert!(said.contains(file.to_str().unwrap()), "{to} is not found: {said}");
    }
}
