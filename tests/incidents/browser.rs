//! A headless Chromium, spoken to through its DevTools pipe: no port, no library.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

/// For one answer. A machine that is busy with other tests is slow.
const PATIENCE: Duration = Duration::from_secs(120);

/// One browser with one page. Ends with this.
pub(crate) struct Browser {
    child: Child,
    ask: File,
    answers: Receiver<Value>,
    serial: u64,
    session: String,
    /// What came unasked.
    pub(crate) events: Vec<Value>,
    _profile: TempDir,
}

fn program() -> PathBuf {
    let named = std::env::var_os("MEMWATCH_TEST_BROWSER").map(PathBuf::from);
    let usual = ["chromium", "chromium-browser", "google-chrome"];
    let found = named.or_else(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let places: Vec<PathBuf> = std::env::split_paths(&path).collect();
        let all = usual
            .iter()
            .flat_map(|name| places.iter().map(move |place| place.join(name)));
        all.into_iter().find(|program| program.is_file())
    });
    found.expect(
        "a Chromium: `cargo xtask test` installs one; or name one with MEMWATCH_TEST_BROWSER",
    )
}

impl Browser {
    pub(crate) fn start() -> Self {
        let profile = TempDir::new().expect("a directory");
        let (theirs_in, ours_out) = pipe();
        let (ours_in, theirs_out) = pipe();
        let (from, to) = (theirs_in.as_raw_fd(), theirs_out.as_raw_fd());
        let mut command = Command::new(program());
        command
            .args([
                "--headless",
                "--no-sandbox", // tests run as root
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--hide-scrollbars",
                "--remote-debugging-pipe",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0);
        // SAFETY: only calls that a forked child may make. Both are moved out of the way first, as they may be
        // 3 or 4 themselves.
        unsafe {
            command.pre_exec(move || {
                let from = libc::fcntl(from, libc::F_DUPFD, 10);
                let to = libc::fcntl(to, libc::F_DUPFD, 10);
                if from < 0 || to < 0 || libc::dup2(from, 3) < 0 || libc::dup2(to, 4) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
                Ok(())
            });
        }
        let child = command.spawn().expect("a browser");
        drop((theirs_in, theirs_out));
        let (tell, answers) = mpsc::channel();
        std::thread::spawn(move || {
            for message in BufReader::new(File::from(ours_in))
                .split(0)
                .map_while(Result::ok)
            {
                let message = serde_json::from_slice(&message).expect("JSON");
                if tell.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            child,
            ask: File::from(ours_out),
            answers,
            serial: 0,
            session: String::new(),
            events: Vec::new(),
            _profile: profile,
        };
        let page = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": page["targetId"], "flatten": true });
        let attached = browser.call("Target.attachToTarget", &attach);
        browser.session = attached["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        for domain in ["Page", "Network", "Log", "Runtime"] {
            browser.call(&format!("{domain}.enable"), &json!({}));
        }
        browser
    }

    /// Asks, and waits for the answer.
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.serial += 1;
        let mut message = json!({ "id": self.serial, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.ask.write_all(&bytes).expect("it reads");
        loop {
            let answer = self.next(method);
            if answer["id"] == self.serial {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// Waits for an event; what came before is kept.
    pub(crate) fn wait_for(&mut self, event: &str) {
        while !self.events.iter().any(|it| it["method"] == event) {
            let next = self.next(event);
            self.events.push(next);
        }
    }

    fn next(&self, what: &str) -> Value {
        let next = self.answers.recv_timeout(PATIENCE);
        next.unwrap_or_else(|error| panic!("no {what} from the browser: {error}"))
    }

    /// Opens a page in a window of that size, in light or dark; what happened meanwhile is in `events`.
    pub(crate) fn open(&mut self, file: &Path, (width, height): (u32, u32), scheme: &str) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.call("Emulation.setDeviceMetricsOverride", &size);
        let scheme = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.call("Emulation.setEmulatedMedia", &scheme);
        self.events.clear();
        let url = format!("file://{}", file.display());
        self.call("Page.navigate", &json!({ "url": url }));
        self.wait_for("Page.loadEventFired");
    }

    /// What an expression comes to in the page.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let ask = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", &ask);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// A picture of the whole page, as PNG in base64.
    pub(crate) fn screenshot(&mut self) -> String {
        let ask = json!({ "format": "png", "captureBeyondViewport": true });
        let answer = self.call("Page.captureScreenshot", &ask);
        answer["data"].as_str().expect("a picture").to_owned()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // All of its processes are in the group that it leads.
        if let Ok(group) = i32::try_from(self.child.id()) {
            // SAFETY: a signal to a group of ours, whose leader has not been waited for.
            unsafe { libc::kill(-group, libc::SIGKILL) };
        }
        let _ = self.child.wait();
    }
}

fn pipe() -> (OwnedFd, OwnedFd) {
    let mut ends = [0; 2];
    // SAFETY: the call fills both, and they are owned by nobody else.
    unsafe {
        assert_eq!(
            libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC),
            0,
            "descriptors"
        );
        (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1]))
    }
}
