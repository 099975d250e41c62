//! `memwatch export test`: a marked incident, and what came back.

use super::desk::Desk;
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
