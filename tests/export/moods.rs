//! A receiver in all its moods, and memwatch killed at any moment: every incident arrives, at least once, under its own
//! id, but for what was refused for good.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use memwatch::export::standing::Standing;

use super::delivering::impatient;
use super::desk::{Desk, incident};
use super::lab::wait_until;
use super::receiver::{Receiver, Reply, TAKE};

/// The receiver's days.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mood {
    Well,
    /// 503.
    Busy,
    /// 429, and a second's rest.
    Crowded,
    /// 400, which is final.
    Strict,
    Hanging,
    Breaking,
    /// Nobody listens.
    Down,
}

const MOODS: [Mood; 7] = [
    Mood::Well,
    Mood::Busy,
    Mood::Crowded,
    Mood::Strict,
    Mood::Hanging,
    Mood::Breaking,
    Mood::Down,
];

impl Mood {
    fn reply(self) -> Reply {
        match self {
            Self::Busy => Reply::Status(503, "", ""),
            Self::Crowded => Reply::Status(429, "retry-after: 1\r\n", ""),
            Self::Strict => Reply::Status(400, "", "no"),
            Self::Hanging => Reply::Hang,
            Self::Breaking => Reply::Half,
            Self::Well | Self::Down => TAKE,
        }
    }
}

/// A receiver that has moods, of which all requests are the victims while they last.
struct Moody {
    mood: Arc<Mutex<Mood>>,
    receiver: Receiver,
}

impl Moody {
    fn new() -> Self {
        let mood = Arc::new(Mutex::new(Mood::Well));
        let now = Arc::clone(&mood);
        let receiver = Receiver::new(move |_| now.lock().expect("whole").reply());
        Self { mood, receiver }
    }

    fn be(&self, mood: Mood) {
        *self.mood.lock().expect("whole") = mood;
        if mood == Mood::Down {
            self.receiver.go_down();
        } else {
            self.receiver.come_back();
        }
    }

    fn mood(&self) -> Mood {
        *self.mood.lock().expect("whole")
    }

    /// How many requests met it so.
    fn met(&self, mood: Mood) -> usize {
        let requests = self.receiver.requests();
        let replies = requests.iter().map(|(_, reply)| reply);
        replies.filter(|reply| **reply == mood.reply()).count()
    }
}

/// xorshift: any numbers will do, and the same each time are told apart more easily.
fn random(seed: &mut u64, most: u64) -> u64 {
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    *seed % most
}

/// The receiver is down, says 503, 429 or 400, hangs, breaks off; and we are killed at any moment.
#[test]
fn a_thousand_incidents_arrive_whatever_the_receiver_does_and_whenever_memwatch_is_killed() {
    const INCIDENTS: usize = 1000;
    let moody = Moody::new();
    let desk = Desk::new(&impatient("hook", &moody.receiver.url()));
    let queue = desk.queue("hook");
    let spool = desk.spool();
    let mut ids = BTreeSet::new();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let mut kills = 0;
    let bad = [
        Mood::Busy,
        Mood::Crowded,
        Mood::Strict,
        Mood::Hanging,
        Mood::Breaking,
    ];
    // Until all are kept, and every mood was met by some.
    let mut was_down = false;
    while ids.len() < INCIDENTS || !was_down || bad.iter().any(|mood| moody.met(*mood) < 3) {
        let delivering = desk.deliver();
        // Now and then long enough to be let in again after a 429.
        let least = if kills % 8 == 7 { 1300 } else { 0 };
        let until = Instant::now() + Duration::from_millis(least + random(&mut seed, 400));
        let mut left = random(&mut seed, 50);
        while Instant::now() < until {
            // What is final soon meets all.
            let lasts = if moody.mood() == Mood::Strict { 2 } else { 10 };
            if random(&mut seed, lasts) == 0 {
                moody.be(MOODS[random(&mut seed, MOODS.len() as u64) as usize]);
            }
            for _ in 0..random(&mut seed, 5).min(left) {
                let record = incident();
                spool.keep(&record).expect("room");
                ids.insert(record.id.to_string());
                left -= 1;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let why = Standing::read(desk.state(), "hook").failure;
        was_down |= why.is_some_and(|why| why.as_str().contains("Connection refused"));
        delivering.kill();
        kills += 1;
        assert!(kills < 400, "{} incidents", ids.len());
    }

    // What was refused for good stays so, and everything else arrives.
    moody.be(Mood::Well);
    let delivering = desk.deliver();
    // There may be no rest: with one more it has begun, and listens to who ends it, when nothing waits.
    let record = incident();
    spool.keep(&record).expect("room");
    ids.insert(record.id.to_string());
    wait_until("the rest", || queue.waiting().is_empty());
    assert_eq!(delivering.end(), Some(0));
    let requests = moody.receiver.requests();
    let refusals = requests
        .iter()
        .filter(|(_, it)| *it == Mood::Strict.reply());
    let told_no: BTreeSet<String> = refusals.map(|(request, _)| request.id()).collect();
    let refused: BTreeSet<String> = fs::read_dir(desk.state().join("refused/hook"))
        .expect("some were refused")
        .map(|entry| entry.expect("there").path())
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    assert!(refused.is_subset(&told_no), "only by an answer");
    let arrived =
        |receiver: &Receiver| -> BTreeSet<String> { receiver.taken().keys().cloned().collect() };
    let all: BTreeSet<String> = arrived(&moody.receiver).union(&refused).cloned().collect();
    assert_eq!(all, ids, "each, and no other");

    // What came twice is the same, under the same id; who wants to be left alone is.
    let mut bodies = BTreeMap::new();
    let mut wants_rest = BTreeMap::new();
    for (request, reply) in &requests {
        let key = format!("idempotency-key: {}", request.id());
        assert!(request.head.contains(&key), "{}", request.head);
        let before = bodies.insert(request.id(), &request.body);
        assert!(before.is_none_or(|body| *body == request.body));
        if let Some(at) = wants_rest.remove(&request.connection) {
            let rest = request.at - at;
            assert!(rest >= Duration::from_secs(1), "{rest:?}");
        }
        if *reply == Mood::Crowded.reply() {
            wants_rest.insert(request.connection, request.at);
        }
    }

    // A receiver that was set right, and somebody who says so.
    queue.retry().expect("room");
    let _delivering = desk.deliver();
    wait_until("the refused", || queue.waiting().is_empty());
    assert_eq!(arrived(&moody.receiver), ids, "none is lost");
    assert_eq!((queue.refused(), queue.lost()), (0, 0));
    let again = requests.len() - bodies.len();
    println!(
        "{} incidents, {kills} kills, {} refused, {again} requests came again",
        ids.len(),
        refused.len()
    );
    assert!(again > 0);
}
