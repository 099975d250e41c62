//! The doctor on the machine that runs the test, against probes that share no code with it.

use std::fs;
use std::os::fd::AsRawFd;

use super::*;

fn facts() -> MachineFacts {
    MachineFacts::read(Path::new("/"), Probes::run())
}

#[test]
fn psi_and_its_windows() {
    let facts = facts();
    let readable = fs::read("/proc/pressure/memory").is_ok();
    assert_eq!(facts.probes.psi.works(), readable);
    assert_eq!(facts.probes.psi_triggers.len(), 3);
    for trigger in &facts.probes.psi_triggers {
        let accepted = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/proc/pressure/memory")
            .is_ok_and(|file| {
                let text = format!("full 50000 {}\0", trigger.window_ms * 1000);
                // SAFETY: the buffer lives across the call and has the length that is given.
                let written =
                    unsafe { libc::write(file.as_raw_fd(), text.as_ptr().cast(), text.len()) };
                written == text.len() as isize
            });
        assert_eq!(trigger.outcome.works(), accepted, "{trigger:?}");
    }
}

#[test]
fn cgroups_by_making_one_where_the_doctor_says() {
    let facts = facts();
    let statfs = |path: &Path| nix::sys::statfs::statfs(path).unwrap().filesystem_type();
    let v2 = facts
        .cgroups
        .layout
        .v2
        .as_ref()
        .expect("this test needs a cgroup v2 mount");
    assert_eq!(statfs(&v2.mount), nix::sys::statfs::CGROUP2_SUPER_MAGIC);
    if let Some(v1) = &facts.cgroups.layout.v1_memory {
        assert_eq!(statfs(&v1.mount), nix::sys::statfs::CGROUP_SUPER_MAGIC);
        assert!(
            !facts.cgroups.layout.v2_has_memory(),
            "one controller has one hierarchy"
        );
    }
    let parent = facts
        .cgroups
        .target_parent
        .expect("this test needs the right to make a cgroup");
    let child = parent.join(format!("doctor-test-{}", std::process::id()));
    fs::create_dir(&child).unwrap();
    let has_max = child.join("memory.max").exists();
    fs::remove_dir(&child).unwrap();
    assert_eq!(facts.cgroups.limits == Limits::V2, has_max);
}

#[test]
fn kernel_rights_and_memory() {
    let facts = facts();
    let uname = nix::sys::utsname::uname().unwrap();
    assert_eq!(facts.kernel_release.as_deref(), uname.release().to_str());
    let mut info = std::mem::MaybeUninit::<libc::sysinfo>::uninit();
    // SAFETY: sysinfo fills the whole struct when it returns 0, which is checked before it is read.
    let info = unsafe {
        assert_eq!(libc::sysinfo(info.as_mut_ptr()), 0);
        info.assume_init()
    };
    let unit = u64::from(info.mem_unit);
    assert_eq!(facts.ram_bytes, Some(info.totalram * unit));
    assert_eq!(facts.swap.is_empty(), info.totalswap == 0);
    for bit in [5, 19, 21, 24, 39] {
        // SAFETY: takes two numbers and touches no memory of ours.
        let effective = unsafe { libc::prctl(libc::PR_CAPBSET_READ, bit, 0, 0, 0) } == 1;
        let root = nix::unistd::geteuid().is_root();
        if root {
            assert_eq!(
                facts.privileges.capabilities & (1 << bit) != 0,
                effective,
                "capability {bit}"
            );
        }
    }
    assert_eq!(facts.unread, [""; 0]);
    assert_eq!(
        facts.probes.kernel_log.works(),
        fs::File::open("/dev/kmsg").is_ok()
    );
}

/// By loading the smallest program of each type through bpf(2) itself: `r0 = 0; exit`.
#[test]
fn bpf_program_types() {
    const BPF_PROG_LOAD: libc::c_long = 5;
    let loads = |program_type: u32| {
        let instructions: [u64; 2] = [0xb7, 0x95];
        let licence = c"GPL";
        let mut attr = [0u64; 16];
        attr[0] = u64::from(program_type) | (2 << 32);
        attr[1] = instructions.as_ptr() as u64;
        attr[2] = licence.as_ptr() as u64;
        // SAFETY: `attr` and what it points to outlive the call; the fd that comes back is ours.
        unsafe {
            let fd = libc::syscall(
                libc::SYS_bpf,
                BPF_PROG_LOAD,
                attr.as_ptr(),
                size_of_val(&attr),
            );
            fd >= 0 && libc::close(fd as i32) == 0
        }
    };
    let bpf = facts().probes.bpf;
    assert_eq!(bpf.raw_tracepoint.works(), loads(17));
    assert_eq!(bpf.perf_event.works(), loads(7));
}
