//! What kind of machine this is: kernel, init, and the kernel settings that decide how a memory
//! shortage goes. Read once, by the doctor and at start; what changes from second to second is
//! `meminfo`'s, `psi`'s and `memory`'s.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::host::text;

/// A file that is there but could not be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}", path.display())]
pub struct ReadError {
    /// Which file.
    pub path: PathBuf,
    /// What the kernel answered.
    pub source: io::Error,
}

/// A whole file below `root`; None if there is none. For files that a kernel without the feature does
/// not have.
pub(crate) fn read_if_there(root: &Path, file: &str) -> Result<Option<Vec<u8>>, ReadError> {
    let path = root.join(file);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ReadError { path, source }),
    }
}

fn number_if_there(root: &Path, file: &str) -> Result<Option<u64>, ReadError> {
    Ok(read_if_there(root, file)?.and_then(|bytes| text::number(&bytes)))
}

fn line_if_there(root: &Path, file: &str) -> Result<Option<String>, ReadError> {
    let bytes = read_if_there(root, file)?;
    Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes.trim_ascii_end()).into_owned()))
}

/// The running kernel's name, such as "6.8.0-45-generic".
///
/// # Errors
/// The file is there and cannot be read.
pub fn kernel_release(root: &Path) -> Result<Option<String>, ReadError> {
    line_if_there(root, "proc/sys/kernel/osrelease")
}

/// Major and minor number of a kernel release.
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let (major, rest) = release.split_once('.')?;
    let digits = rest
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(rest.len());
    Some((major.parse().ok()?, rest[..digits].parse().ok()?))
}

/// Who is PID 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Init {
    /// Its name; None where `/proc` hides it.
    pub comm: Option<String>,
    /// Whether the system was booted with systemd (sd_booted(3): `/run/systemd/system` exists).
    pub systemd: bool,
}

/// Finds out who is PID 1.
///
/// # Errors
/// The file is there and cannot be read.
pub fn init(root: &Path) -> Result<Init, ReadError> {
    Ok(Init {
        comm: line_if_there(root, "proc/1/comm")?,
        systemd: root.join("run/systemd/system").is_dir(),
    })
}

/// Kernel settings; None where the kernel was built without the feature.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Settings {
    /// MGLRU's feature bits; 0 is off (Documentation/admin-guide/mm/multigen_lru.rst).
    pub mglru_bits: Option<u32>,
    /// After how long a task in D state is reported; 0 is never.
    pub hung_task_timeout_s: Option<u64>,
    /// What the SysRq key may do (Documentation/admin-guide/sysrq.rst): 0 nothing, 1 everything, else
    /// a bit mask.
    pub sysrq_bits: Option<u64>,
    /// Whether swapped pages are first compressed in memory.
    pub zswap: Option<bool>,
}

/// Reads the kernel settings.
///
/// # Errors
/// A file is there and cannot be read.
pub fn settings(root: &Path) -> Result<Settings, ReadError> {
    let mglru = line_if_there(root, "sys/kernel/mm/lru_gen/enabled")?;
    let zswap = line_if_there(root, "sys/module/zswap/parameters/enabled")?;
    Ok(Settings {
        mglru_bits: mglru
            .and_then(|bits| u32::from_str_radix(bits.trim_start_matches("0x"), 16).ok()),
        hung_task_timeout_s: number_if_there(root, "proc/sys/kernel/hung_task_timeout_secs")?,
        sysrq_bits: number_if_there(root, "proc/sys/kernel/sysrq")?,
        zswap: zswap.map(|answer| answer == "Y" || answer == "1"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_real_releases() {
        assert_eq!(kernel_version("6.8.0-45-generic"), Some((6, 8)));
        assert_eq!(kernel_version("5.15-rc3"), Some((5, 15)));
        assert_eq!(kernel_version("7.3"), Some((7, 3)));
        assert_eq!(kernel_version("unknown"), None);
    }

    #[test]
    fn a_kernel_without_a_feature_has_no_setting_for_it() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(settings(root.path()).unwrap(), Settings::default());
        assert_eq!(init(root.path()).unwrap(), Init::default());
        assert_eq!(kernel_release(root.path()).unwrap(), None);
    }

    #[test]
    fn settings_as_the_kernel_prints_them() {
        let root = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("sys/kernel/mm/lru_gen/enabled", "0x0007\n"),
            ("sys/module/zswap/parameters/enabled", "Y\n"),
            ("proc/sys/kernel/hung_task_timeout_secs", "120\n"),
            ("proc/sys/kernel/sysrq", "176\n"),
        ] {
            let path = root.path().join(file);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let expected = Settings {
            mglru_bits: Some(7),
            hung_task_timeout_s: Some(120),
            sysrq_bits: Some(176),
            zswap: Some(true),
        };
        assert_eq!(settings(root.path()).unwrap(), expected);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let root = tempfile::tempdir().unwrap();
        let in_the_way = root.path().join("proc/sys/kernel/sysrq");
        std::fs::create_dir_all(&in_the_way).unwrap();
        assert_eq!(settings(root.path()).unwrap_err().path, in_the_way);
    }
}
