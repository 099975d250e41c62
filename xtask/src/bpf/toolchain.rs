//! What it takes to build BPF programs from Rust: a compiler that has the source of its library,
//! and `bpf-linker`. Installs by name what is missing, where it may; else says what to install.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};

use crate::packages::apt_install;

const LINKER_VERSION: &str = "0.13.0";
/// The LLVM of the linker has to read the bitcode of the compiler's, so not be older.
const LINKER_LLVM: &str = "22";

const COMPILER_PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src"];
const LINKER_PACKAGES: &[&str] = &["llvm-22-dev", "libzstd-dev", "zlib1g-dev"];

/// Where the tools are, and which they are.
pub(super) struct Toolchain {
    pub(super) rustc: PathBuf,
    pub(super) cargo: PathBuf,
    /// `PATH` for a build: the compiler's directory first, then the linker's.
    pub(super) path: OsString,
    sysroot: PathBuf,
    cargo_home: PathBuf,
    record: String,
}

impl Toolchain {
    pub(super) fn find_or_install() -> Result<Self> {
        let cargo_home = cargo_home()?;
        let (bin, sysroot) = match compiler_with_library_source() {
            Some(found) => found,
            None => {
                apt_install(
                    COMPILER_PACKAGES,
                    "a Rust compiler with the source of its library \
                     (with rustup: `rustup component add rust-src`)",
                )?;
                compiler_with_library_source().context("no library source after installing")?
            }
        };
        let linker = cargo_home.join("bin/bpf-linker");
        if output(&linker, &["--version"]).ok().as_deref() != Some(&linker_banner()) {
            install_linker()?;
        }
        let rustc = bin.join("rustc");
        let record = describe(&rustc)?;
        Ok(Self {
            cargo: bin.join("cargo"),
            path: path_with_first(&[&bin, &cargo_home.join("bin")])?,
            rustc,
            sysroot,
            cargo_home,
            record,
        })
    }

    /// The text that goes beside the object: two builders with the same text make the same bytes.
    pub(super) fn record(&self) -> String {
        self.record.clone()
    }

    /// Compiler flags after which no path of this machine is in the object.
    pub(super) fn remap_paths(&self, root: &Path) -> Vec<String> {
        [
            (root, "/memwatch"),
            (&self.cargo_home, "/cargo"),
            (&self.sysroot, "/rust"),
        ]
        .into_iter()
        .map(|(from, to)| format!("--remap-path-prefix={}={to}", from.display()))
        .collect()
    }
}

/// The directory of a `rustc` that builds this workspace and whose library source is installed, and
/// its sysroot. The system's goes first: rustup's usually comes without.
fn compiler_with_library_source() -> Option<(PathBuf, PathBuf)> {
    let on_path = env::var_os("PATH").unwrap_or_default();
    let candidates = [PathBuf::from("/usr/bin")]
        .into_iter()
        .chain(env::split_paths(&on_path));
    candidates
        .filter(|bin| bin.join("cargo").exists())
        .find_map(|bin| {
            let sysroot = PathBuf::from(output(&bin.join("rustc"), &["--print", "sysroot"]).ok()?);
            let source = sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml");
            (source.exists() && is_new_enough(&bin)).then_some((bin, sysroot))
        })
}

/// Whether the compiler is at least the workspace's `rust-version`.
fn is_new_enough(bin: &Path) -> bool {
    let numbers = |version: &str| -> Option<(u32, u32)> {
        let mut parts = version.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??))
    };
    let version = output(&bin.join("rustc"), &["--version"]).unwrap_or_default();
    let found = version.split_whitespace().nth(1).and_then(numbers);
    found >= numbers(env!("CARGO_PKG_RUST_VERSION"))
}

fn install_linker() -> Result<()> {
    let llvm = format!("/usr/lib/llvm-{LINKER_LLVM}/bin/llvm-config");
    if !Path::new(&llvm).exists() {
        apt_install(
            LINKER_PACKAGES,
            &format!("LLVM {LINKER_LLVM}'s development files"),
        )?;
    }
    let feature = format!("llvm-{LINKER_LLVM}");
    let prefix = format!("/usr/lib/llvm-{LINKER_LLVM}");
    let arguments = [
        "install",
        "bpf-linker",
        "--version",
        LINKER_VERSION,
        "--locked",
    ];
    let features = ["--no-default-features", "--features", &feature];
    // Without the prefix its build takes the LLVM of whichever llvm-config is first on PATH.
    run(Command::new("cargo")
        .args(arguments)
        .args(features)
        .env("LLVM_PREFIX", prefix))
}

fn describe(rustc: &Path) -> Result<String> {
    let verbose = output(rustc, &["-vV"])?;
    let field = |name: &str| {
        verbose
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
            .with_context(|| format!("{} -vV does not say `{name}`", rustc.display()))
    };
    Ok(format!(
        "# What built memwatch.bpf.o. `cargo xtask bpf verify` expects the same bytes from the same\n\
         # builder, and the same instructions from any other.\n\
         rustc = \"{} ({})\"\n\
         llvm = \"{}\"\n\
         linker = \"{}\"\n",
        field("release:")?,
        field("commit-hash:")?,
        field("LLVM version:")?,
        linker_banner(),
    ))
}

fn linker_banner() -> String {
    format!("bpf-linker {LINKER_VERSION}")
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    let home = env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?;
    Ok(Path::new(&home).join(".cargo"))
}

fn path_with_first(first: &[&Path]) -> Result<OsString> {
    let rest = env::var_os("PATH").unwrap_or_default();
    let first = first.iter().map(PathBuf::from);
    Ok(env::join_paths(first.chain(env::split_paths(&rest)))?)
}

fn output(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    ensure!(
        output.status.success(),
        "{} failed: {}",
        program.display(),
        output.status
    );
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("running {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}
