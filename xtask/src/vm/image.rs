//! The root of all guests, which is made once and never written to. What each boot brings and takes is
//! `disks`'.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::apt::Archive;
use super::cache::keep;
use super::disks::{OUT, PAYLOAD, WITHOUT_JOURNAL, file_system};
use super::output;
use crate::workspace::step;

const SUITE: &str = "trixie";
/// A machine like users' (systemd, systemd-oomd, users who log in), and what scenarios need to look at it and
/// to run in it.
const PACKAGES: &str = "systemd,systemd-sysv,systemd-oomd,libpam-systemd,dbus,dbus-user-session,udev,jq,procps,\
     python3-numpy,python3-pytest,python3-pytest-xdist,podman,crun";
/// Scenarios make files in it; the image is sparse.
const SIZE: &str = "2G";
/// The kernel finds its root by this. By the name of the device it cannot: kernels since 6.10 look for
/// several at a time.
pub(super) const DISK_SIGNATURE: u32 = 0x6d65_6d77;
/// Where the one partition begins.
const PARTITION_SECTOR: u32 = 2048;
const SECTOR_BYTES: u32 = 512;

const JOB: &str = include_str!("guest/run-scenarios.sh");
const JOB_UNIT: &str = include_str!("guest/run-scenarios.service");
/// The log is asked for as soon as a scenario has ended and then thrown away with the machine.
const JOURNAL: &str = "[Journal]\nStorage=volatile\nRateLimitBurst=0\n";

/// What only costs time in a machine that lives for a minute.
const UNWANTED: &str = "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer fstrim.timer \
    e2scrub_all.timer e2scrub_reap.service ldconfig.service systemd-binfmt.service \
    systemd-firstboot.service systemd-hwdb-update.service systemd-journal-catalog-update.service \
    systemd-machine-id-commit.service systemd-networkd.service systemd-pstore.service \
    systemd-timesyncd.service systemd-update-utmp.service getty.target serial-getty@ttyS0.service \
    dev-hugepages.mount dev-mqueue.mount sys-fs-fuse-connections.mount \
    proc-sys-fs-binfmt_misc.automount";

/// The root image below `dir`, made if it is not there or its recipe has changed.
///
/// # Errors
/// If a step fails.
pub(super) fn provide(archive: &Archive, dir: &Path) -> Result<PathBuf> {
    let recipe = [include_str!("image.rs"), JOB, JOB_UNIT].concat();
    let dir = dir.join("root");
    keep(&dir, &recipe, |dir| make(archive, dir))?;
    Ok(dir.join("image"))
}

fn make(archive: &Archive, dir: &Path) -> Result<()> {
    let tree = dir.join("tree");
    let mut install = Command::new("mmdebstrap");
    install
        .args(["--quiet", "--mode=root", "--variant=minbase"])
        .arg(format!("--include={PACKAGES}"))
        .arg("--aptopt=APT::Install-Recommends \"false\"");
    for unread in ["man", "doc", "locale", "info"] {
        install.arg(format!("--dpkgopt=path-exclude=/usr/share/{unread}/*"));
    }
    install.arg(SUITE).arg(&tree).arg(archive.source(SUITE));
    step("install the guests' root", &mut install)?;

    let fstab = format!("LABEL={PAYLOAD} /{PAYLOAD} ext4 ro\nLABEL={OUT} /{OUT} ext4 rw\n");
    for (path, text) in [
        ("etc/fstab", fstab.as_str()),
        ("etc/hostname", "memwatch-vm\n"),
        ("etc/machine-id", "6d656d77617463682d766d2d67756573\n"),
        ("etc/systemd/journald.conf.d/volatile.conf", JOURNAL),
        ("etc/systemd/system/run-scenarios.service", JOB_UNIT),
        ("usr/local/sbin/run-scenarios", JOB),
    ] {
        let path = tree.join(path);
        fs::create_dir_all(path.parent().context("a directory")?)?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    let job = tree.join("usr/local/sbin/run-scenarios");
    fs::set_permissions(job, fs::Permissions::from_mode(0o755))?;
    for mount_point in [PAYLOAD, OUT] {
        fs::create_dir(tree.join(mount_point))?;
    }
    let mut enable = Command::new("chroot");
    enable.arg(&tree).args(["systemctl", "--quiet"]);
    output(enable.args(["enable", "run-scenarios.service"]))?;
    let mut mask = Command::new("chroot");
    mask.arg(&tree).args(["systemctl", "--quiet", "mask"]);
    output(mask.args(UNWANTED.split_whitespace()))?;
    let image = dir.join("image");
    let offset = format!("offset={}", PARTITION_SECTOR * SECTOR_BYTES);
    let options = [&WITHOUT_JOURNAL[..], &["-E", &offset]].concat();
    file_system(&options, &tree, &image, SIZE)?;
    partition(&image).with_context(|| format!("writing {}", image.display()))?;
    fs::remove_dir_all(tree)?;
    Ok(())
}

/// Writes a table of partitions, with one, from [`PARTITION_SECTOR`] to the end.
fn partition(image: &Path) -> io::Result<()> {
    let image = File::options().read(true).write(true).open(image)?;
    let sectors = u32::try_from(image.metadata()?.len() / u64::from(SECTOR_BYTES))
        .map_err(io::Error::other)?;
    const LINUX: u8 = 0x83;
    let mut entry = [0; 16];
    entry[4] = LINUX;
    entry[8..12].copy_from_slice(&PARTITION_SECTOR.to_le_bytes());
    entry[12..].copy_from_slice(&(sectors - PARTITION_SECTOR).to_le_bytes());
    image.write_all_at(&DISK_SIGNATURE.to_le_bytes(), 440)?;
    image.write_all_at(&entry, 446)?;
    image.write_all_at(&[0x55, 0xaa], 510)
}
