//! Tells the crate what it was built from. Where something cannot be found out the metrics say `unknown`.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    tell("RUSTVERSION", output(&rustc, &["--version"]).and_then(|text| Some(text.split(' ').nth(1)?.to_owned())));
    for (name, variable) in [("OS", "CARGO_CFG_TARGET_OS"), ("ARCH", "CARGO_CFG_TARGET_ARCH"), ("PROFILE", "PROFILE")] {
        tell(name, std::env::var(variable).ok());
    }
    // Whoever builds a package may say who and when; nobody else knows.
    println!("cargo::rerun-if-env-changed=RESTART_EXPORTER_BUILD_USER");
    println!("cargo::rerun-if-env-changed=RESTART_EXPORTER_BUILD_DATE");
    // Only our own repository: a packaged copy may lie inside somebody else's.
    if Path::new(".git").exists() {
        tell("REVISION", output("git", &["rev-parse", "HEAD"]));
        tell("BRANCH", output("git", &["rev-parse", "--abbrev-ref", "HEAD"]));
        if let Some(directory) = output("git", &["rev-parse", "--git-dir"]) {
            println!("cargo::rerun-if-changed={directory}/HEAD");
        }
    }
}

fn tell(name: &str, value: Option<String>) {
    if let Some(value) = value {
        println!("cargo::rustc-env=RESTART_EXPORTER_{name}={value}");
    }
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
