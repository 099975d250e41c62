//! Whether this machine can run guests itself, or qemu has to emulate them.

use std::path::Path;
use std::process::Command;

/// What qemu's `-accel` takes.
pub(super) fn accelerator(kernel: &Path) -> &'static str {
    if Path::new("/dev/kvm").exists() && kvm_works(kernel) {
        "kvm"
    } else {
        "tcg,thread=multi"
    }
}

/// Really tried: in a machine that is virtual itself KVM may be there and fail at the first step. A kernel
/// with no root panics after a second, which ends qemu, well.
fn kvm_works(kernel: &Path) -> bool {
    let mut qemu = Command::new("timeout");
    qemu.args(["--signal=KILL", "20", "qemu-system-x86_64", "-accel", "kvm"])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .args(["-machine", "q35", "-cpu", "max", "-m", "512M"])
        .args(["-no-reboot", "-append", "panic=-1", "-kernel"])
        .arg(kernel);
    qemu.output().is_ok_and(|output| output.status.success())
}
