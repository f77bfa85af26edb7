//! A headless Chromium, driven over the pipes of its DevTools protocol.

use std::process::Stdio;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::world::{soon, until};

/// A browser with one page. Ends when dropped.
pub(crate) struct Browser {
    _process: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    session: Option<String>,
    last: u64,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser whose window has this size; panics and says so if Chromium is not installed.
    pub(crate) async fn start(width: u32, height: u32) -> Self {
        let profile = tempfile::tempdir().unwrap();
        // Descriptors 3 and 4 are what the protocol speaks over.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null", "sh", "chromium"]);
        command.args([
            "--headless=new",
            "--remote-debugging-pipe",
            "--no-first-run",
            "--disable-gpu",
            "--hide-scrollbars",
        ]);
        command.args(["--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"]);
        if rustix::process::geteuid().is_root() {
            command.arg("--no-sandbox");
        }
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut process = command.spawn().unwrap();
        let (commands, answers) = (process.stdin.take().unwrap(), process.stdout.take().unwrap());
        let answers = BufReader::new(answers);
        let mut browser = Self { _process: process, commands, answers, session: None, last: 0, _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"})).await["targetId"].clone();
        let attach = json!({"targetId": target, "flatten": true});
        let session = browser.call("Target.attachToTarget", attach).await;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        browser.call("Page.enable", json!({})).await;
        browser.resize(width, height).await;
        browser
    }

    /// Gives the window this size; a narrow one is that of a phone.
    pub(crate) async fn resize(&mut self, width: u32, height: u32) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.call("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    /// One command of the protocol, answered.
    pub(crate) async fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.last += 1;
        let mut message = json!({"id": self.last, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).await.expect("chromium ended, or is not installed: see tests/run");
        loop {
            let mut bytes = Vec::new();
            soon(method, self.answers.read_until(0, &mut bytes)).await.unwrap();
            assert_eq!(bytes.pop(), Some(0), "chromium ended, or is not installed: see tests/run");
            let answer: Value = serde_json::from_slice(&bytes).unwrap();
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// Opens a page, and waits until it and all it consists of has been loaded.
    pub(crate) async fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url})).await;
        let loaded = format!("document.readyState === 'complete' && location.href.startsWith({})", json!(url));
        self.wait_for(&loaded).await;
    }

    /// The value of an expression in the page; a promise is awaited.
    pub(crate) async fn eval(&mut self, expression: &str) -> Value {
        let question = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.call("Runtime.evaluate", question).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Asks again and again until the expression is true.
    pub(crate) async fn wait_for(&mut self, expression: &str) {
        until(expression, async || (self.eval(expression).await == true).then_some(())).await;
    }

    /// The text that a person sees in the first element that the selector finds.
    pub(crate) async fn text(&mut self, selector: &str) -> String {
        let text = self.eval(&format!("document.querySelector({})?.innerText ?? ''", json!(selector))).await;
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Whether all of the element is inside of the window.
    pub(crate) async fn is_on_screen(&mut self, selector: &str) -> bool {
        let inside = format!(
            "(() => {{ const box = document.querySelector({})?.getBoundingClientRect(); \
             return !!box && box.top >= 0 && box.left >= 0 && box.bottom <= innerHeight && box.right <= innerWidth }})()",
            json!(selector)
        );
        self.eval(&inside).await == true
    }

    /// Presses and releases a key.
    pub(crate) async fn press(&mut self, key: &str) {
        let text = match key {
            "Enter" => "\r",
            key if key.chars().count() == 1 => key,
            _ => "",
        };
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            _ => 0,
        };
        let down = json!({"type": "keyDown", "key": key, "text": text, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", down).await;
        let up = json!({"type": "keyUp", "key": key, "windowsVirtualKeyCode": code});
        self.call("Input.dispatchKeyEvent", up).await;
    }

    /// What the window shows, as the base64 of a PNG.
    pub(crate) async fn screenshot(&mut self) -> String {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        picture["data"].as_str().unwrap().to_owned()
    }
}
