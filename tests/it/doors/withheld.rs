//! Who sees the last output of programs, and gives orders: root, our own user, and users of the web config file. These
//! tests need to be root, because they ask as another user.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;

use crate::web_config::site::users;
use crate::world::{Foreign, Running, run_to_end, until};

const SECRET: &str = "the password is 1234";

/// Another user, who has no processes but those of these tests.
const USER: [&str; 4] = ["setpriv", "--reuid=64322", "--regid=64322", "--clear-groups"];

/// A file with a child that writes it and dies.
fn talkers() -> String {
    format!(
        "[[supervisor]]\nname = \"talkers\"\n[[supervisor.child]]\nid = \"talker\"\n\
         command = [\"sh\", \"-c\", \"echo {SECRET} >&2; exit 3\"]\n"
    )
}

/// An exporter with a child that has died and left its last output.
async fn exporter_with_last_output(directory: &Path, arguments: &[&str]) -> Running {
    let exporter = Running::file_with(directory, &talkers(), arguments).await;
    let history = "/api/v1/history?supervisor=talkers";
    until("a death", async || exporter.data(history).await["events"].get(0).map(drop)).await;
    exporter
}

/// What curl gets, head and body; run as `user`.
fn curl(user: &[&str], arguments: &[&str]) -> String {
    let words = [user, &["curl", "-sS", "-i", "--max-time", "20", "--noproxy", "*"], arguments].concat();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Where everything is that may show last output.
fn places(address: SocketAddr) -> [String; 4] {
    let history = "/api/v1/history?supervisor=talkers";
    let paths = ["/api/v1/supervisors", history, "/api/v1/causes?supervisor=talkers", "/?supervisor=talkers"];
    paths.map(|path| format!("http://{address}{path}"))
}

/// A request that is refused unless it is trusted; this one is about nothing that exists.
fn order(address: SocketAddr) -> String {
    format!("http://{address}/api/v1/stop?supervisor=nothing")
}

fn assert_withheld(place: &str, answer: &str) {
    assert!(!answer.contains(SECRET), "{place} shows it: {answer}");
    let says = if place.contains("/?") { "Its last output is withheld" } else { "\"last_output_withheld\":true" };
    assert!(answer.contains(says), "{place} does not say that it is withheld: {answer}");
}

/// nginx as Debian installs it, in front of this address with nothing but `proxy_pass`.
struct Nginx {
    _process: Foreign,
    _directory: tempfile::TempDir,
    address: SocketAddr,
}

impl Nginx {
    async fn start(upstream: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let prefix = directory.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|name| format!("{name}_temp_path {prefix}/{name};\n"))
            .concat();
        let text = format!(
            "user www-data;\npid {prefix}/pid;\ndaemon off;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n\
             {temporary}server {{ listen {address}; location / {{ proxy_pass http://{upstream}; }} }}\n}}\n"
        );
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let process = Foreign::start("nginx", &["-e", "stderr", "-c", file.to_str().unwrap()]);
        until("nginx", async || tokio::net::TcpStream::connect(address).await.ok()).await;
        Self { _process: process, _directory: directory, address }
    }
}

// A proxy of the simplest kind adds no header and keeps a loopback Host. Its clients are strangers all the same: page, API
// and commands say that last output is withheld, and orders are refused.
#[tokio::test]
async fn a_default_nginx_passes_on_nothing_that_is_withheld() {
    let directory = tempfile::tempdir().unwrap();
    let exporter = exporter_with_last_output(directory.path(), &["--web.enable-admin-api"]).await;
    let nginx = Nginx::start(exporter.address).await;
    for (direct, proxied) in places(exporter.address).iter().zip(places(nginx.address)) {
        assert!(curl(&[], &[direct]).contains(SECRET), "{direct}");
        assert_withheld(&proxied, &curl(&[], &[&proxied]));
    }
    let url = format!("--url=http://{}", nginx.address);
    for command in [&["why", "talkers/talker"][..], &["history", "talkers"], &["status"], &["why", "talkers"]] {
        let ended = run_to_end(&[command, &[&url]].concat());
        let said = ended.stdout + &ended.stderr;
        assert!(!said.contains(SECRET) && said.contains("the last output is withheld"), "{command:?}: {said}");
        assert!(said.contains("--url unix:PATH"), "{command:?} does not say what to do: {said}");
    }
    assert!(curl(&[], &["-X", "POST", &order(exporter.address)]).starts_with("HTTP/1.1 404 "));
    let refused = curl(&[], &["-X", "POST", &order(nginx.address)]);
    assert!(refused.starts_with("HTTP/1.1 403 ") && refused.contains("use --url unix:PATH, or --user"), "{refused}");
    let page = |address| curl(&[], &[&format!("http://{address}/")]);
    assert!(page(exporter.address).contains("admin API on") && page(nginx.address).contains("read only"));
}

// Another user of the host is a stranger, and so is a request with a header of a proxy or for another host.
#[tokio::test]
async fn another_user_of_the_host_is_a_stranger() {
    let directory = tempfile::tempdir().unwrap();
    let exporter = exporter_with_last_output(directory.path(), &["--web.enable-admin-api"]).await;
    for place in places(exporter.address) {
        assert!(curl(&[], &[&place]).contains(SECRET), "{place}");
        assert_withheld(&place, &curl(&USER, &[&place]));
        for header in ["Via: 1.1 proxy", "X-Real-IP: 127.0.0.1", "X-Forwarded-Proto: https", "Host: evil.example"] {
            assert_withheld(&place, &curl(&[], &["-H", header, &place]));
        }
    }
    assert!(curl(&USER, &["-X", "POST", &order(exporter.address)]).starts_with("HTTP/1.1 403 "));
    // What is for everyone is answered.
    let metrics = format!("http://{}/metrics", exporter.address);
    assert!(curl(&USER, &[&metrics]).starts_with("HTTP/1.1 200 "));
}

// The exporter's own user is as good as root; a user of the web config file may be anywhere.
#[tokio::test]
async fn a_password_shows_what_is_withheld() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("web.yml");
    std::fs::write(&file, users()).unwrap();
    let flag = format!("--web.config.file={}", file.display());
    let arguments = [flag.as_str(), "--web.enable-admin-api"];
    let exporter = Running::file_with(directory.path(), &talkers(), &arguments).await;
    let ada = ["-u", "ada:correct horse: battery", "-H", "X-Forwarded-For: 192.0.2.1"];
    let ask = |user: &[&str], more: &[&str], place: &str| curl(user, &[&ada, more, &[place]].concat());
    let history = &places(exporter.address)[1];
    until("a death", async || ask(&USER, &[], history).contains(SECRET).then_some(())).await;
    for place in places(exporter.address) {
        assert!(ask(&USER, &[], &place).contains(SECRET), "{place}");
        assert!(curl(&[], &[&place]).starts_with("HTTP/1.1 401 "), "{place}");
    }
    assert!(ask(&USER, &["-X", "POST"], &order(exporter.address)).starts_with("HTTP/1.1 404 "));
}

// What a program explains before it ends is for those who read its standard error, whatever the web config file asks of others.
#[test]
fn the_explanation_of_a_give_up_needs_no_password() {
    let directory = tempfile::tempdir().unwrap();
    let (tree, web) = (directory.path().join("tree.toml"), directory.path().join("web.yml"));
    let text = talkers().replace("[[supervisor.child]]", "max_restarts = 1\n[[supervisor.child]]\nbackoff = \"none\"");
    std::fs::write(&tree, text).unwrap();
    std::fs::write(&web, users() + "rate_limit: {interval: 1h, burst: 1}\n").unwrap();
    let flag = format!("--web.config.file={}", web.display());
    let flags = ["--exit.on-give-up=always", "--web.listen-address=127.0.0.1:0", "--beam.listen-address=", &flag];
    let ended = run_to_end(&[&["run", tree.to_str().unwrap()], &flags[..]].concat());
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    let explained = ended.stderr.contains("exit code 3") && ended.stderr.matches(SECRET).count() > 2;
    assert!(explained && !ended.stderr.contains("--user"), "{}", ended.stderr);
}
