//! Notifications on a real bus: a `dbus-daemon --session` that is another user's. Who shows them is the test itself,
//! since no desktop runs here: it takes what org.freedesktop.Notifications says, and keeps it.

use std::{
    collections::HashMap,
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::Command,
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

use zbus::OwnedVariant;

use super::delivering::Exporting;
use super::lab::wait_until;
use super::receiver::{Running, succeed};
use super::users::{NOBODY, as_user, block_on};

/// A user's bus, where logind would have it.
struct Bus {
    dir: PathBuf,
    _daemon: Running,
}

impl Bus {
    fn of(uid: u32) -> Self {
        let dir = PathBuf::from(format!("/run/user/{uid}"));
        fs::create_dir_all("/run/user").expect("root");
        // Of a user who never logs in, and whom dbus-daemon finds a name for.
        fs::create_dir(&dir).expect("nobody else's");
        chown(&dir, Some(uid), Some(uid)).expect("root");
        let mut command = Command::new("dbus-daemon");
        command
            .args(["--session", "--nofork", "--nopidfile"])
            .arg(format!("--address=unix:path={}/bus", dir.display()))
            .uid(uid)
            .gid(uid);
        let daemon = Running::start(&mut command);
        wait_until("a bus", || dir.join("bus").exists());
        Self {
            dir,
            _daemon: daemon,
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// One that was to be shown.
#[derive(Debug)]
struct Shown {
    app: String,
    title: String,
    body: String,
    urgency: u8,
    timeout: i32,
}

struct Server {
    capabilities: Vec<String>,
    shown: Sender<Shown>,
}

#[zbus::interface(name = "org.freedesktop.Notifications")]
impl Server {
    fn get_capabilities(&self) -> Vec<String> {
        self.capabilities.clone()
    }

    #[allow(clippy::too_many_arguments, reason = "the interface has them")]
    fn notify(
        &self,
        app: String,
        _replaces: u32,
        _icon: String,
        title: String,
        body: String,
        _actions: Vec<String>,
        hints: HashMap<String, OwnedVariant>,
        timeout: i32,
    ) -> u32 {
        let urgency = hints.get("urgency").expect("an urgency");
        let urgency = u8::try_from(urgency.clone()).expect("a byte");
        let shown = Shown {
            app,
            title,
            body,
            urgency,
            timeout,
        };
        self.shown.send(shown).expect("somebody looks");
        1
    }
}

/// Shows what comes on that user's bus, as that user, to the end of the test.
fn serve(bus: &Bus, uid: u32, capabilities: &[&str]) -> Receiver<Shown> {
    let (shown, seen) = channel();
    let server = Server {
        capabilities: capabilities.iter().map(ToString::to_string).collect(),
        shown,
    };
    let address = format!("unix:path={}/bus", bus.dir.display());
    let (tell, ready) = channel();
    thread::spawn(move || {
        as_user(uid, || {
            block_on(async {
                let bus = zbus::connection::Builder::address(&*address)
                    .name("org.freedesktop.Notifications")
                    .serve_at("/org/freedesktop/Notifications", server)
                    .build()
                    .await
                    .expect("a bus");
                tell.send(()).expect("somebody waits");
                std::future::pending::<()>().await;
                drop(bus);
            });
        });
    });
    ready.recv().expect("it serves");
    seen
}

const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn root_has_a_user_shown_what_concerns_the_machine_on_that_users_own_bus() {
    let bus = Bus::of(NOBODY);
    let seen = serve(&bus, NOBODY, &["body", "body-markup"]);
    let exporting = Exporting::new("[export.desktop]\n");
    let said = succeed(&mut exporting.command(&["test", "desktop"]));
    assert!(said.contains(&format!("shown to uid {NOBODY}")), "{said}");
    let shown = seen.recv_timeout(PATIENCE).expect("shown");
    assert_eq!(shown.app, "memwatch");
    assert_eq!(shown.title, "memwatch tests its notifications");
    assert!(!shown.body.is_empty());
    assert_eq!((shown.urgency, shown.timeout), (1, -1));
}

#[test]
fn a_desktop_that_reads_markup_gets_names_as_text_and_another_as_they_are() {
    let body = r#"<b>python3</b> & "co" (pid 1)"#;
    let notification = serde_json::json!({
        "title": "a <title>", "body": body, "is_grave": true,
    });
    for (capabilities, expected) in [
        (
            &["body", "body-markup"][..],
            r#"&lt;b&gt;python3&lt;/b&gt; &amp; "co" (pid 1)"#,
        ),
        (&["body"], body),
    ] {
        let bus = Bus::of(NOBODY);
        let seen = serve(&bus, NOBODY, capabilities);
        let exporting = Exporting::new("");
        let input = exporting.file("notification.json");
        fs::write(&input, notification.to_string()).expect("room");
        let mut show = exporting.command(&["show-notification"]);
        show.stdin(fs::File::open(input).expect("written"))
            .env(
                "DBUS_SESSION_BUS_ADDRESS",
                format!("unix:path={}/bus", bus.dir.display()),
            )
            .uid(NOBODY)
            .gid(NOBODY);
        succeed(&mut show);
        let shown = seen.recv_timeout(PATIENCE).expect("shown");
        assert_eq!(shown.title, "a <title>");
        assert_eq!((&*shown.body, shown.urgency), (expected, 2));
    }
}

#[test]
fn without_anybody_to_tell_and_without_a_desktop_it_waits() {
    let exporting = Exporting::new("[export.desktop]\n");
    let test = |why: &str| {
        let output = exporting
            .command(&["test", "desktop"])
            .output()
            .expect("it runs");
        assert_eq!(output.status.code(), Some(1));
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains(why), "{said}");
    };
    test("nobody whom it concerns is logged in");
    let _bus = Bus::of(NOBODY);
    test("the desktop does not show it");
}
