//! What the journal's fields hold. The real journald is in `tests/exporters`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::os::fd::{FromRawFd as _, OwnedFd};

use nix::sys::socket::{ControlMessageOwned, recvmsg};

use super::*;
use crate::incident::{Comm, sample};

const KINDS: [Kind; 13] = [
    Kind::Run,
    Kind::Test,
    Kind::NearMiss,
    Kind::Warn,
    Kind::Hang,
    Kind::Freeze,
    Kind::Abort,
    Kind::KernelOom,
    Kind::Kill,
    Kind::Timeout,
    Kind::Takeover,
    Kind::HandBack,
    Kind::HardReset,
];

/// Fields as journald reads them.
fn read(mut entry: &[u8]) -> BTreeMap<String, Vec<String>> {
    let mut fields: BTreeMap<String, Vec<String>> = BTreeMap::new();
    while !entry.is_empty() {
        let end = entry
            .iter()
            .position(|byte| *byte == b'\n')
            .expect("a name");
        let name = String::from_utf8(entry[..end].to_vec()).expect("text");
        let (length, rest) = entry[end + 1..].split_first_chunk::<8>().expect("a length");
        let (value, rest) = rest.split_at(u64::from_le_bytes(*length) as usize);
        assert_eq!(rest[0], b'\n');
        let value = String::from_utf8(value.to_vec()).expect("text");
        fields.entry(name).or_default().push(value);
        entry = &rest[1..];
    }
    fields
}

#[test]
fn a_kill_says_whom_and_why_in_fields_that_can_be_searched() {
    let record = sample::grave();
    let fields = read(&entry(&record));
    for (name, values) in [
        ("MESSAGE_ID", &["cbcb7063bbe7480cbf823d1111733dbb"][..]),
        ("PRIORITY", &["3"]),
        ("MEMWATCH_KIND", &["kill"]),
        ("MEMWATCH_RULE", &["exhaustion", "stall"]),
        ("MEMWATCH_VICTIM_PID", &["4250", "4300"]),
        ("MEMWATCH_VICTIM_COMM", &["python3", r"a\nb\x1b[31m\xff"]),
        ("MEMWATCH_KILLED_BY", &["memwatch", "kernel_oom"]),
        ("MEMWATCH_TARGET", &["/sys/fs/cgroup/memwatch-0123abcd"]),
        ("MEMWATCH_DRY_RUN", &["0"]),
    ] {
        assert_eq!(fields[name], values, "{name}");
    }
    assert_eq!(fields["MEMWATCH_INCIDENT_ID"], [record.id.to_string()]);
    let whole = Record::from_json(fields["MEMWATCH_RECORD"][0].as_bytes());
    assert_eq!(whole.expect("whole"), record);
}

#[test]
fn no_value_begins_another_field() {
    let mut entry = Entry::default();
    entry.field("MEMWATCH_VICTIM_COMM", "a\nPRIORITY=0\nMESSAGE=all is well");
    let fields = read(&entry.bytes);
    assert_eq!(fields.len(), 1, "{fields:?}");
    let mut record = sample::killed();
    record.victims[0].process.comm = Comm::new(b"x\nPRIORITY=0");
    record.notes.push("a\nMEMWATCH_KIND=run".into());
    let fields = read(&super::entry(&record));
    assert_eq!(fields["PRIORITY"], ["3"]);
    assert_eq!(fields["MEMWATCH_KIND"], ["kill"]);
}

#[test]
fn names_of_fields_are_such_as_the_journal_takes() {
    let fields = read(&entry(&sample::grave()));
    let fits = |c: char| c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit();
    for name in fields.keys() {
        let first = name.chars().next().expect("a name");
        assert!(
            first.is_ascii_uppercase() && name.chars().all(fits),
            "{name}"
        );
        assert!(name.len() <= 64, "{name}");
    }
}

#[test]
fn every_kind_has_an_id_of_its_own_and_the_catalog_explains_it() {
    let catalog = include_str!("../../../systemd/memwatch.catalog");
    let explained: BTreeSet<&str> = catalog
        .lines()
        .filter_map(|line| line.strip_prefix("-- "))
        .collect();
    let ids: BTreeSet<String> = KINDS
        .iter()
        .map(|kind| message_id(*kind).simple().to_string())
        .collect();
    assert_eq!(ids.len(), KINDS.len());
    assert_eq!(explained, ids.iter().map(String::as_str).collect());
}

#[test]
fn what_is_too_large_for_a_datagram_goes_as_a_file_that_nobody_can_change() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("socket");
    let journald = UnixDatagram::bind(&path).expect("bound");
    let large = vec![b'x'; 8 << 20];
    Journal::at(&path).hand_over(&large).expect("taken");
    let mut space = nix::cmsg_space!(RawFd);
    let mut nothing = [0; 8];
    let mut data = [io::IoSliceMut::new(&mut nothing)];
    let fd = journald.as_raw_fd();
    let message = recvmsg::<()>(fd, &mut data, Some(&mut space), MsgFlags::empty());
    let message = message.expect("sent");
    assert_eq!(message.bytes, 0);
    let Some(ControlMessageOwned::ScmRights(files)) = message.cmsgs().expect("whole").next() else {
        panic!("no file came");
    };
    // SAFETY: the kernel has just made it for this process, and nobody else knows it.
    let file = unsafe { OwnedFd::from_raw_fd(files[0]) };
    let seals = fcntl(&file, FcntlArg::F_GET_SEALS).expect("seals");
    let mut file = File::from(file);
    let all = SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE
        | SealFlag::F_SEAL_SEAL;
    assert_eq!(SealFlag::from_bits_truncate(seals), all);
    io::Seek::rewind(&mut file).expect("a file");
    let mut came = Vec::new();
    file.read_to_end(&mut came).expect("a file");
    assert_eq!(came, large);
}

#[test]
fn without_a_journal_it_is_tried_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let journal = Journal::at(&dir.path().join("socket"));
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let refused = runtime
        .expect("a runtime")
        .block_on(journal.deliver(&sample::killed()));
    let Err(Refusal::Later { why, .. }) = refused else {
        panic!("{refused:?}");
    };
    assert!(why.contains("journald does not listen"), "{why}");
}
