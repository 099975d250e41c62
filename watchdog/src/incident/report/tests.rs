//! Reports on real file systems, with what stands in the way of them in real life. Root is needed:
//! for the full disk, and to be somebody else.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink},
    thread,
};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    unistd::mkfifo,
};
use tempfile::TempDir;

use super::*;
use crate::incident::sample;

const NOBODY: u32 = 65534;
const SOMEBODY: u32 = 65533;

fn scratch() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    directory
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Runs `task` on a thread with another user's rights. The raw system calls change one thread;
/// glibc's wrappers would change them all.
fn as_user<T: Send>(uid: u32, task: impl FnOnce() -> T + Send) -> T {
    assert!(
        geteuid().is_root(),
        "these tests need root, to be somebody else"
    );
    let on_thread = || {
        // SAFETY: both take plain integers and touch the calling thread's credentials only.
        let changed = unsafe {
            libc::syscall(libc::SYS_setgroups, 0, std::ptr::null::<libc::gid_t>())
                | libc::syscall(libc::SYS_setresgid, uid, uid, uid)
                | libc::syscall(libc::SYS_setresuid, uid, uid, uid)
        };
        assert_eq!(changed, 0, "{}", io::Error::last_os_error());
        task()
    };
    thread::scope(|scope| scope.spawn(on_thread).join().unwrap())
}

#[test]
fn directories_are_made_only_where_that_is_expected_and_not_behind_a_foreign_link() {
    let directory = scratch();
    let path = directory.path().join("a/b/../c/report.xml");
    assert!(refusal(&path).contains("cannot open its directory"));
    assert_eq!(names(directory.path()), [] as [&str; 0]);
    let file = ReportFile::open_making_directories(&path).unwrap();
    file.write_bytes(b"it").unwrap();
    let made = fs::read(directory.path().join("a/c/report.xml"));
    assert_eq!(made.unwrap(), b"it");
    let link = directory.path().join("link");
    symlink(directory.path().join("a"), &link).unwrap();
    std::os::unix::fs::lchown(&link, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
    let refused = ReportFile::open_making_directories(&link.join("new/report.xml"));
    assert!(matches!(refused, Err(ReportError::ForeignLink { .. })));
    assert_eq!(names(&directory.path().join("a")), ["b", "c"]);
}

fn refusal(path: &Path) -> String {
    ReportFile::open(path).unwrap_err().to_string()
}

#[test]
fn a_report_appears_whole_under_its_name() {
    let directory = scratch();
    let path = directory.path().join("report.json");
    let record = sample::killed();
    let report = ReportFile::open(&path).unwrap();
    assert!(!path.exists(), "it must not be there before it is whole");
    report.write(&record).unwrap();
    assert_eq!(
        Record::from_json(&fs::read(&path).unwrap()).unwrap(),
        record
    );
    assert_eq!(names(directory.path()), ["report.json"]);
}

#[test]
fn its_mode_is_what_the_umask_leaves() {
    let directory = scratch();
    let [report, plain] = ["report.json", "plain"].map(|name| directory.path().join(name));
    ReportFile::open(&report)
        .unwrap()
        .write(&sample::quiet())
        .unwrap();
    fs::write(&plain, "").unwrap();
    let mode = |path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&report), mode(&plain) & 0o644);
}

#[test]
fn a_file_that_is_there_is_replaced_at_once_and_not_written_into() {
    let directory = scratch();
    let [path, old] = ["report.json", "old"].map(|name| directory.path().join(name));
    fs::write(&path, "before").unwrap();
    fs::hard_link(&path, &old).unwrap();
    let report = ReportFile::open(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    report.write(&sample::quiet()).unwrap();
    assert!(Record::from_json(&fs::read(&path).unwrap()).is_ok());
    assert_eq!(fs::read_to_string(&old).unwrap(), "before");
}

#[test]
fn nothing_is_there_before_it_is_whole_nor_if_it_is_dropped() {
    let directory = scratch();
    let report = ReportFile::open(&directory.path().join("report.json")).unwrap();
    assert!(names(directory.path()).is_empty());
    drop(report);
    assert!(names(directory.path()).is_empty());
}

#[test]
fn without_nameless_files_a_passing_name_is_used_and_removed() {
    let directory = scratch();
    let unfinished = || {
        Unfinished::create_named(open_directory(directory.path(), Missing::Refuse).unwrap())
            .unwrap()
    };
    let dropped = unfinished();
    assert_eq!(names(directory.path()), [dropped.name.as_str()]);
    drop(dropped);
    assert!(names(directory.path()).is_empty());
    unfinished()
        .finish(OsStr::new("report.json"), b"{}")
        .unwrap();
    assert_eq!(names(directory.path()), ["report.json"]);
    fs::create_dir(directory.path().join("taken")).unwrap();
    let error = unfinished().finish(OsStr::new("taken"), b"{}").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    assert_eq!(names(directory.path()), ["report.json", "taken"]);
}

#[test]
fn a_link_in_its_place_is_refused_wherever_it_leads() {
    let directory = scratch();
    let [path, prey] = ["report.json", "prey"].map(|name| directory.path().join(name));
    symlink(&prey, &path).unwrap();
    assert!(
        refusal(&path).contains("a symbolic link stands there"),
        "dangling"
    );
    fs::write(&prey, "precious").unwrap();
    assert!(
        refusal(&path).contains("a symbolic link stands there"),
        "leading somewhere"
    );
    assert_eq!(fs::read_to_string(&prey).unwrap(), "precious");
    assert_eq!(names(directory.path()), ["prey", "report.json"]);
}

#[test]
fn a_link_put_there_during_the_run_is_replaced_and_not_followed() {
    let directory = scratch();
    let [path, prey] = ["report.json", "prey"].map(|name| directory.path().join(name));
    fs::write(&prey, "precious").unwrap();
    let report = ReportFile::open(&path).unwrap();
    symlink(&prey, &path).unwrap();
    report.write(&sample::quiet()).unwrap();
    assert!(fs::symlink_metadata(&path).unwrap().is_file());
    assert_eq!(fs::read_to_string(&prey).unwrap(), "precious");
}

#[test]
fn a_fifo_is_refused_without_opening_it() {
    let directory = scratch();
    let path = directory.path().join("report.json");
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    assert!(refusal(&path).contains("a fifo stands there"));
    assert!(fs::metadata(&path).unwrap().file_type().is_fifo());
}

#[test]
fn a_device_is_refused() {
    assert!(refusal(Path::new("/dev/full")).contains("a device stands there"));
}

#[test]
fn a_directory_is_refused_however_it_is_spelt() {
    let directory = scratch();
    let path = directory.path();
    for spelling in [
        path.to_owned(),
        path.join("new/"),
        path.join("."),
        path.join(".."),
        "/".into(),
        "".into(),
    ] {
        assert!(
            refusal(&spelling).contains("add a file name"),
            "{}",
            spelling.display()
        );
    }
}

#[test]
fn a_directory_that_is_missing_or_a_file_is_refused() {
    let directory = scratch();
    let missing = refusal(&directory.path().join("missing/report.json"));
    assert!(
        missing.contains("No such file or directory") && missing.contains("create it"),
        "{missing}"
    );
    fs::write(directory.path().join("file"), "").unwrap();
    assert!(refusal(&directory.path().join("file/report.json")).contains("Not a directory"));
}

#[test]
fn a_directory_that_this_user_cannot_write_to_is_refused() {
    let directory = scratch();
    let path = directory.path().join("report.json");
    let message = as_user(NOBODY, || refusal(&path));
    assert!(
        message.contains("Permission denied") && message.contains("that you can write to"),
        "{message}"
    );
}

#[test]
fn in_a_shared_directory_ones_own_file_is_replaced_and_anothers_is_refused() {
    let directory = scratch();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let [mine, theirs] = ["mine", "theirs"].map(|name| directory.path().join(name));
    for (path, owner) in [(&mine, NOBODY), (&theirs, SOMEBODY)] {
        fs::write(path, "before").unwrap();
        chown(path, Some(owner), None).unwrap();
    }
    as_user(NOBODY, || {
        ReportFile::open(&mine)
            .unwrap()
            .write(&sample::quiet())
            .unwrap()
    });
    assert_eq!(fs::metadata(&mine).unwrap().uid(), NOBODY);
    let message = as_user(NOBODY, || refusal(&theirs));
    assert!(message.contains("belongs to uid 65533"), "{message}");
    // The kernel agrees: the rule that was asked is the one that it would have applied.
    let renamed = as_user(NOBODY, || fs::rename(&mine, &theirs));
    assert_eq!(renamed.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
}

#[test]
fn ones_own_link_on_the_way_is_followed_and_anothers_is_not() {
    let directory = scratch();
    let real = directory.path().join("real");
    fs::create_dir(&real).unwrap();
    for (link, to) in [("relative", "real"), ("planted", "real"), ("loop", "loop")] {
        symlink(to, directory.path().join(link)).unwrap();
    }
    symlink(
        directory.path().join("relative/../real"),
        directory.path().join("absolute"),
    )
    .unwrap();
    std::os::unix::fs::lchown(directory.path().join("planted"), Some(NOBODY), None).unwrap();

    let report = ReportFile::open(&directory.path().join("absolute/report.json")).unwrap();
    report.write(&sample::quiet()).unwrap();
    assert_eq!(names(&real), ["report.json"]);
    let message = refusal(&directory.path().join("planted/report.json"));
    assert!(
        message.contains("`planted` is a symbolic link that belongs to uid 65534"),
        "{message}"
    );
    assert!(refusal(&directory.path().join("loop/report.json")).contains("Too many levels"));
}

#[test]
fn on_a_full_disk_the_error_says_so_and_the_old_report_stays() {
    let directory = scratch();
    let root = directory.path().to_owned();
    let in_own_mounts = move || {
        // A thread may have mounts of its own; they end with it.
        unshare(CloneFlags::CLONE_NEWNS).expect("root");
        let nothing = None::<&str>;
        mount(
            nothing,
            "/",
            nothing,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            nothing,
        )
        .unwrap();
        mount(
            Some("tmpfs"),
            &root,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("size=64k"),
        )
        .unwrap();

        let path = root.join("report.json");
        fs::write(&path, "before").unwrap();
        let report = ReportFile::open(&path).unwrap();
        let mut filler = File::create(root.join("filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}

        let error = report.write(&sample::killed()).unwrap_err();
        let ReportError::Write { source, .. } = &error else {
            panic!("{error}")
        };
        assert_eq!(source.raw_os_error(), Some(libc::ENOSPC));
        assert!(
            error.to_string().contains("No space left on device"),
            "{error}"
        );
        assert!(error.to_string().contains("report.json"), "{error}");
        assert_eq!(names(&root), ["filler", "report.json"]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "before");
    };
    thread::spawn(in_own_mounts).join().unwrap();
    assert!(
        names(directory.path()).is_empty(),
        "the mount must not be seen outside"
    );
}

#[test]
fn a_message_is_one_line_whatever_the_path_holds() {
    let message = refusal(Path::new("/nowhere\n\x1b[2J/report.json"));
    assert!(!message.contains(['\n', '\x1b']), "{message:?}");
}
