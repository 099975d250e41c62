//! Whatever the receiver does and whenever memwatch dies: every incident arrives, at least once, under its own id,
//! and one exporter's trouble is no other's.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use memwatch::export::standing::Standing;

use super::desk::{Desk, incident};
use super::lab::wait_until;
use super::receiver::{Receiver, Reply, TAKE, nobodys_port};

/// A webhook that is tried again soon.
pub(crate) fn hook(name: &str, url: &str) -> String {
    format!(
        "[export.{name}]\ntype = 'webhook'\nurl = '{url}'\ntimeout = '3s'\nretry_least = '1ms'\nretry_most = '20ms'\n"
    )
}

/// One that waits for an answer no longer than a busy receiver may take for it.
pub(crate) fn impatient(name: &str, url: &str) -> String {
    hook(name, url).replace("'3s'", "'300ms'")
}

#[test]
fn an_incident_is_told_as_soon_as_it_is_kept_and_its_id_is_the_key() {
    let receiver = Receiver::new(|_| TAKE);
    let desk = Desk::new(&hook("hook", &receiver.url()));
    let queue = desk.queue("hook");
    let delivering = desk.deliver();
    let record = desk.keep();
    wait_until("a delivery", || queue.waiting().is_empty());
    let requests = receiver.requests();
    let [(request, _)] = requests.as_slice() else {
        panic!("{requests:?}");
    };
    let event = request.json();
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["id"], record.id.to_string());
    assert_eq!(event["type"], "memwatch.incident.kill");
    assert_eq!(event["datacontenttype"], "application/json");
    let kept = serde_json::to_value(&record).expect("JSON");
    assert_eq!(event["data"], kept, "as it is on the disk");
    let head = &request.head;
    for line in [
        "content-type: application/cloudevents+json; charset=utf-8".to_owned(),
        format!("idempotency-key: {}", record.id),
    ] {
        assert!(head.contains(&line), "{head}");
    }
    assert_eq!(delivering.end(), Some(0));
}

#[test]
fn a_new_exporter_begins_with_what_is_kept_from_now_on_unless_all_is_wanted() {
    let receiver = Receiver::new(|_| TAKE);
    let desk = Desk::new(&hook("hook", &receiver.url()));
    let before = desk.keep();
    assert_eq!(desk.exported(&["run", "--once"]).0, Some(0));
    assert!(receiver.taken().is_empty(), "kept before");
    let after = desk.keep();
    assert_eq!(desk.exported(&["run", "--once"]).0, Some(0));
    assert_eq!(receiver.taken().len(), 1);
    assert!(receiver.taken().contains_key(&after.id.to_string()));
    assert_eq!(desk.exported(&["run", "--once", "--all"]).0, Some(0));
    assert!(receiver.taken().contains_key(&before.id.to_string()));
}

#[test]
fn what_a_receiver_says_decides_whether_and_when_it_is_asked_again() {
    // Once each, then well.
    let replies = [
        Reply::Status(503, "", "busy"),
        Reply::Status(429, "retry-after: 1\r\n", ""),
        Reply::Status(503, "retry-after: Fri, 31 Dec 1999 23:59:59 GMT\r\n", ""),
        Reply::Status(408, "", ""),
        Reply::Hang,
        Reply::Half,
    ];
    let count = replies.len();
    let replies = Mutex::new(replies.into_iter());
    let asked: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let times = Arc::clone(&asked);
    let receiver = Receiver::new(move |_| {
        times.lock().expect("whole").push(Instant::now());
        replies.lock().expect("whole").next().unwrap_or(TAKE)
    });
    let desk = Desk::new(&hook("hook", &receiver.url()));
    let queue = desk.queue("hook");
    desk.keep();
    let _delivering = desk.deliver();
    wait_until("a delivery", || queue.waiting().is_empty());
    let asked = asked.lock().expect("whole");
    assert_eq!(asked.len(), count + 1);
    let pause = asked[2] - asked[1];
    assert!(
        pause >= Duration::from_secs(1),
        "not before it wants: {pause:?}"
    );
    let log = desk.log();
    let first =
        "the exporter hook does not get through: 503 Service Unavailable: busy; 1 incidents wait";
    assert_eq!(log.matches("does not get through").count(), 1, "{log}");
    assert!(log.contains(first), "{log}");
    assert!(
        log.contains("the exporter hook gets through again"),
        "{log}"
    );
}

#[test]
fn what_is_refused_for_good_is_put_aside_and_said_and_can_be_sent_again() {
    let is_right = Arc::new(AtomicBool::new(false));
    let right = Arc::clone(&is_right);
    let receiver = Receiver::new(move |_| {
        if right.load(Ordering::Relaxed) {
            TAKE
        } else {
            Reply::Status(401, "", "who are you?\x1b[2J")
        }
    });
    let desk = Desk::new(&hook("hook", &receiver.url()));
    let queue = desk.queue("hook");
    let record = desk.keep();
    let (code, text) = desk.exported(&["run", "--once"]);
    assert_eq!(code, Some(0), "nothing waits: {text}");
    assert!(
        text.contains("401 Unauthorized: who are you?\\x1b[2J"),
        "{text}"
    );
    assert!(text.contains("memwatch export retry hook"), "{text}");
    assert_eq!((queue.waiting().len(), queue.refused()), (0, 1));
    let (_, list) = desk.exported(&["list"]);
    assert!(
        list.contains("up to date, 1 refused (401 Unauthorized"),
        "{list}"
    );
    is_right.store(true, Ordering::Relaxed);
    let _delivering = desk.deliver();
    let (code, text) = desk.exported(&["retry", "hook"]);
    assert_eq!(
        (code, text.as_str()),
        (Some(0), "1 incidents wait for hook again\n")
    );
    wait_until("a delivery", || queue.waiting().is_empty());
    assert!(receiver.taken().contains_key(&record.id.to_string()));
    assert_eq!(desk.exported(&["retry", "other"]).0, Some(125));
}

#[test]
fn what_is_refused_is_no_delivery() {
    // Down at first, then it refuses everything, and in the end it takes one.
    let replies = [
        Reply::Status(503, "", ""),
        Reply::Status(401, "", ""),
        Reply::Status(400, "", ""),
    ];
    let replies = Mutex::new(replies.into_iter());
    let receiver = Receiver::new(move |_| replies.lock().expect("whole").next().unwrap_or(TAKE));
    let desk = Desk::new(&hook("hook", &receiver.url()));
    let queue = desk.queue("hook");
    let standing = || Standing::read(desk.state(), "hook");
    desk.keep();
    desk.keep();
    let delivering = desk.deliver();
    wait_until("two refusals", || queue.refused() == 2);
    wait_until("a word of it", || standing().refusal.is_some());
    assert_eq!(delivering.end(), Some(0));
    assert_eq!(standing().delivered_at, None, "nothing was taken");
    assert!(standing().failed_at.is_some(), "it has taken nothing since");
    let (_, list) = desk.exported(&["list"]);
    assert!(!list.contains("delivered last"), "{list}");
    assert!(!desk.log().contains("gets through again"), "{}", desk.log());
    desk.keep();
    let _delivering = desk.deliver();
    wait_until("a delivery", || standing().delivered_at.is_some());
    assert!(desk.log().contains("gets through again"), "{}", desk.log());
    let (_, list) = desk.exported(&["list"]);
    assert!(list.contains("up to date, 2 refused"), "{list}");
    assert!(list.contains("delivered last"), "{list}");
}

#[test]
fn one_exporters_trouble_is_no_others_and_one_incident_holds_up_no_other() {
    let hanging = Receiver::new(|_| Reply::Hang);
    let well = Receiver::new(|_| TAKE);
    let poison: Arc<Mutex<Option<String>>> = Arc::default();
    let poisoned = Arc::clone(&poison);
    let choosy = Receiver::new(move |request| {
        let poison = poisoned.lock().expect("whole").clone();
        if poison == Some(request.id()) {
            Reply::Status(500, "", "I crash on this one")
        } else {
            TAKE
        }
    });
    let gone = format!("http://127.0.0.1:{}", nobodys_port());
    let config = [
        hook("gone", &gone),
        impatient("hanging", &hanging.url()),
        hook("choosy", &choosy.url()),
        hook("well", &well.url()),
    ];
    let desk = Desk::new(&config.concat());
    let names = ["gone", "hanging", "choosy", "well"];
    let [gone, hanging, choosy_queue, well_queue] = names.map(|name| desk.queue(name));
    let first = desk.keep();
    *poison.lock().expect("whole") = Some(first.id.to_string());
    let others: Vec<_> = (0..5).map(|_| desk.keep()).collect();
    let _delivering = desk.deliver();
    wait_until("those that work", || {
        well_queue.waiting().is_empty() && choosy_queue.waiting() == [first.id]
    });
    assert_eq!(well.taken().len(), 6);
    for other in others {
        assert!(choosy.taken().contains_key(&other.id.to_string()));
    }
    assert_eq!((gone.waiting().len(), hanging.waiting().len()), (6, 6));
    wait_until("what hangs", || {
        desk.exported(&["list"]).1.contains("no answer in time")
    });
    let (_, list) = desk.exported(&["list"]);
    assert!(list.contains("Connection refused"), "{list}");
    assert!(
        list.contains(": 1 wait (500 Internal Server Error: I crash on this one)"),
        "{list}"
    );
}

#[test]
fn its_configuration_is_read_again_and_a_wrong_one_changes_nothing() {
    let [old, new] = [(), ()].map(|()| Receiver::new(|_| TAKE));
    let desk = Desk::new(&hook("hook", &old.url()));
    let queue = desk.queue("hook");
    let delivering = desk.deliver();
    desk.keep();
    wait_until("a delivery", || old.taken().len() == 1);
    desk.configure("[export.hook]\ntype = 'webhook'\nurl = 'ftp://nowhere'\n");
    delivering.signal(libc::SIGHUP);
    wait_until("an objection", || desk.log().contains("stays in force"));
    desk.keep();
    // Taken and known to be: who is told to read its configuration meanwhile tells the new one, too.
    wait_until("a delivery", || {
        old.taken().len() == 2 && queue.waiting().is_empty()
    });
    desk.configure(&hook("hook", &new.url()));
    delivering.signal(libc::SIGHUP);
    wait_until("a word", || desk.log().contains("was read again"));
    desk.keep();
    wait_until("a delivery", || {
        new.taken().len() == 1 && queue.waiting().is_empty()
    });
    // What nobody is configured for waits, is told of, and can be dropped.
    desk.configure("");
    delivering.signal(libc::SIGHUP);
    let said = "0 incidents wait for the exporter hook, which is not configured any more";
    wait_until("a word", || desk.log().contains(said));
    desk.keep();
    let (_, list) = desk.exported(&["list"]);
    assert!(
        list.contains("hook (not configured any more): 1 wait"),
        "{list}"
    );
    let (code, text) = desk.exported(&["forget", "hook"]);
    assert_eq!(
        (code, text.as_str()),
        (Some(0), "1 incidents do not wait for hook any more\n")
    );
}

/// Keeps incidents until it is killed, and names each that it has kept: a process for the test below.
#[test]
#[ignore = "not a test by itself"]
fn keeper() {
    let Some(state) = env::var_os("KEEPER_STATE") else {
        return;
    };
    let bounds = memwatch::config::Incidents {
        most: 100_000,
        ..Default::default()
    };
    let spool = memwatch::export::Spool::open(state.as_ref(), &bounds).expect("a spool");
    loop {
        let record = incident();
        spool.keep(&record).expect("room");
        println!("kept {}", record.id);
    }
}

#[test]
fn who_keeps_may_be_killed_and_what_is_kept_is_whole_and_in_every_queue() {
    let desk = Desk::new("");
    let queues = ["one", "two"].map(|name| desk.queue(name));
    let mut kept = BTreeSet::new();
    for round in 0..20 {
        let mut keeper = Command::new(env::current_exe().expect("this program"))
            .args(["--exact", "delivering::keeper", "--ignored", "--nocapture"])
            .env("KEEPER_STATE", desk.state())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it runs");
        let mut lines = BufReader::new(keeper.stdout.take().expect("a pipe")).lines();
        let mut left = 3 + round;
        while left > 0 {
            let line = lines.next().expect("it goes on").expect("text");
            // The harness' own word may stand before it.
            if let Some((_, id)) = line.split_once("kept ") {
                kept.insert(id.to_owned());
                left -= 1;
            }
        }
        thread::sleep(Duration::from_micros(round * 150));
        keeper.kill().expect("ours");
        keeper.wait().expect("ours");
        let rest = lines.map_while(Result::ok);
        kept.extend(rest.filter_map(|line| Some(line.split_once("kept ")?.1.to_owned())));
    }
    // Whoever comes next finishes what the dead had begun.
    let spool = desk.spool();
    let ids = spool.ids();
    for id in &kept {
        assert!(
            ids.iter().any(|known| known.to_string() == *id),
            "{id} is lost"
        );
    }
    for queue in &queues {
        let waiting: BTreeSet<_> = queue.waiting().into_iter().collect();
        assert!(
            ids.iter().all(|id| waiting.contains(id)),
            "each is in each queue"
        );
        for id in waiting {
            queue.read(id).expect("whole");
        }
    }
    let strays = fs::read_dir(spool.dir()).expect("there").flatten();
    let strays: Vec<_> = strays
        .map(|entry| entry.file_name().into_string().expect("text"))
        .filter(|name| !name.ends_with(".json"))
        .collect();
    assert!(strays.is_empty(), "{strays:?}");
}
