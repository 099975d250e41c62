//! Marks on cgroups, for others to find.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

/// Marks are a help, not a need: kernels before 5.7 have no user xattrs on cgroups.
pub(super) fn set(dir: &Path, name: &str, value: &[u8]) {
    let (Ok(path), Ok(name)) = (CString::new(dir.as_os_str().as_bytes()), CString::new(name))
    else {
        return;
    };
    // SAFETY: both are valid C strings and `value` is as long as said.
    unsafe {
        libc::setxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_ptr().cast(),
            value.len(),
            0,
        )
    };
}

pub(super) fn remove(dir: &Path, name: &str) {
    let (Ok(path), Ok(name)) = (CString::new(dir.as_os_str().as_bytes()), CString::new(name))
    else {
        return;
    };
    // SAFETY: both are valid C strings.
    unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) };
}

pub(super) fn get(dir: &Path, name: &str) -> Option<OsString> {
    let path = CString::new(dir.as_os_str().as_bytes()).ok()?;
    let name = CString::new(name).ok()?;
    let mut value = vec![0u8; 4096];
    // SAFETY: both are valid C strings and the buffer is as long as said.
    let len = unsafe {
        libc::getxattr(
            path.as_ptr(),
            name.as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    value.truncate(usize::try_from(len).ok()?);
    Some(OsString::from_vec(value))
}
