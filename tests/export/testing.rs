//! `memwatch export test`: a marked incident, and what came back.

use memwatch::export::standing::{self, Report};

use super::desk::Desk;
use super::lab::wait_until;
use super::receiver::{Receiver, Reply, TAKE, nobodys_port};

#[test]
fn it_sends_a_marked_incident_to_each_and_says_what_came_back() {
    let well = Receiver::new(|_| TAKE);
    let strict = Receiver::new(|_| Reply::Status(403, "", "not you"));
    let gone = nobodys_port();
    let config = format!(
        "[export.well]\ntype = 'webhook'\nurl = '{}'\n[export.strict]\ntype = 'webhook'\nurl = '{}'\n\
         [export.otlp]\nurl = 'http://127.0.0.1:{gone}'\n",
        well.url(),
        strict.url()
    );
    let desk = Desk::new(&config);
    let (code, text) = desk.exported(&["test"]);
    assert_eq!(code, Some(1), "{text}");
    for part in [
        "\nwell: taken in ",
        ": 200 OK: thanks\n",
        "strict: FAILED after ",
        ": refused: 403 Forbidden: not you\n",
        "otlp: FAILED after ",
        "Connection refused",
    ] {
        assert!(format!("\n{text}").contains(part), "no `{part}` in: {text}");
    }
    let (code, text) = desk.exported(&["test", "well"]);
    assert_eq!(code, Some(0), "{text}");
    let requests = well.requests();
    let event = requests[1].0.json();
    assert_eq!(event["type"], "memwatch.incident.test");
    assert_eq!(event["data"]["kind"], "test");
    assert!(
        text.contains(event["id"].as_str().expect("an id")),
        "{text}"
    );
    assert!(!desk.state().exists(), "nothing is kept of it");
}

#[test]
fn what_cannot_be_tested_is_memwatchs_own_failure() {
    let desk = Desk::new("");
    let (code, text) = desk.exported(&["test"]);
    assert_eq!(code, Some(125), "{text}");
    assert!(text.contains("no exporter is configured"), "{text}");
    desk.configure("[export.hook]\ntype = 'webhook'\nurl = 'http://127.0.0.1:1'\n");
    let (code, text) = desk.exported(&["test", "hok"]);
    assert_eq!(code, Some(125), "{text}");
    assert!(
        text.contains("there is no exporter hok; there are: hook"),
        "{text}"
    );
    let secret = desk.file("headers");
    let config = format!(
        "[export.hook]\ntype = 'webhook'\nurl = 'http://127.0.0.1:1'\nheaders_file = '{}'\n",
        secret.display()
    );
    desk.configure(&config);
    let (code, text) = desk.exported(&["test"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("cannot read") && text.contains("No such file"),
        "{text}"
    );
}

#[test]
fn headers_go_along_and_their_secrets_are_shown_nowhere() {
    let receiver = Receiver::new(|_| TAKE);
    let desk = Desk::new("");
    std::fs::write(desk.file("headers"), "Authorization: Bearer s3cret\n").expect("room");
    desk.configure(&format!(
        "[export.hook]\ntype = 'webhook'\nurl = '{}'\nheaders = {{ X-Scope-OrgID = '7' }}\nheaders_file = '{}'\n",
        receiver.url(),
        desk.file("headers").display()
    ));
    let (code, text) = desk.exported(&["test", "-vv"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    let head = &receiver.requests()[0].0.head;
    assert!(head.contains("authorization: bearer s3cret"), "{head}");
    assert!(head.contains("x-scope-orgid: 7"), "{head}");
}

#[test]
fn what_stands_behind_the_host_is_told_to_nobody() {
    // Nobody is there; somebody is, and repeats it.
    let gone = format!("http://127.0.0.1:{}", nobodys_port());
    let says = "Cannot POST /T0/S3CRET?key=s3cret";
    let chatty = Receiver::new(move |_| Reply::Status(503, "", says));
    let strict = Receiver::new(move |_| Reply::Status(404, "", says));
    let desk = Desk::new("");
    let mut config = String::new();
    for (name, url) in [
        ("gone", gone),
        ("chatty", chatty.url()),
        ("strict", strict.url()),
    ] {
        config += &format!(
            "[export.{name}]\ntype = 'webhook'\nurl = '{url}/T0/S3CRET?key=s3cret'\nretry_least = '1ms'\n"
        );
        desk.queue(name);
    }
    desk.configure(&config);
    desk.keep();
    let delivering = desk.deliver();
    let said = |name| Report::of(desk.state(), name).line();
    wait_until("failures", || {
        said("gone").contains("Connection refused")
            && said("chatty").contains("503 Service Unavailable: Cannot POST ***")
            && said("strict").contains("404 Not Found: Cannot POST ***")
    });
    delivering.kill();
    let (_, tested) = desk.exported(&["test", "-vv"]);
    assert!(tested.contains("gone: FAILED after "), "{tested}");
    assert!(tested.contains("Connection refused"), "{tested}");
    let (_, list) = desk.exported(&["list"]);
    assert!(
        list.contains("gone (webhook to http://127.0.0.1:"),
        "{list}"
    );
    let (_, once) = desk.exported(&["run", "--once"]);
    assert!(once.contains("Connection refused"), "{once}");
    // What the daemon answers to everybody is the same lines.
    let status: Vec<String> = standing::all(desk.state())
        .iter()
        .map(Report::line)
        .collect();
    for text in [desk.log(), tested, list, once, status.concat()] {
        let text = text.to_ascii_lowercase();
        assert!(!text.contains("s3cret"), "{text}");
    }
}
