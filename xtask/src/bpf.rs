//! `cargo xtask bpf`: makes the BPF object that is checked in, and proves that it is what the
//! source says. What is needed to build is `toolchain`'s business, comparing is `object`'s.

use std::{
    fs,
    path::{Path, PathBuf},
    process,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand;

use self::{object::Canonical, toolchain::Toolchain};

mod object;
mod toolchain;

/// Named by the Cargo.toml of `watchdog-ebpf`.
const BIN: &str = "memwatch-bpf";
const TARGET: &str = "bpfel-unknown-none";

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Build the programs and write the object, with a record of what built it.
    Build,
    /// Build the programs again and compare with the object that is checked in.
    Verify,
}

impl Command {
    pub(crate) fn run(self) -> Result<()> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has no parent")?;
        let checked_in = CheckedIn::under(root);
        let toolchain = Toolchain::find_or_install()?;
        let built = compile(root, &toolchain)?;
        match self {
            Self::Build => checked_in.write(&built, &toolchain.record()),
            Self::Verify => checked_in.verify(&built, &toolchain.record()),
        }
    }
}

/// The object in the repository and the record beside it.
struct CheckedIn {
    object: PathBuf,
    record: PathBuf,
}

impl CheckedIn {
    fn under(root: &Path) -> Self {
        let directory = root.join("watchdog-ebpf/bpf");
        Self {
            object: directory.join("memwatch.bpf.o"),
            record: directory.join("memwatch.bpf.toml"),
        }
    }

    fn write(&self, object: &[u8], record: &str) -> Result<()> {
        Canonical::parse(object).context("the object just built")?;
        fs::create_dir_all(self.object.parent().context("no parent")?)?;
        fs::write(&self.object, object)
            .with_context(|| format!("writing {}", self.object.display()))?;
        fs::write(&self.record, record)
            .with_context(|| format!("writing {}", self.record.display()))?;
        println!("{}: {} bytes", self.object.display(), object.len());
        Ok(())
    }

    /// One builder makes the same bytes twice. Another may order things differently, so then it is
    /// the programs that are compared.
    fn verify(&self, rebuilt: &[u8], record: &str) -> Result<()> {
        let recorded = fs::read_to_string(&self.record)
            .with_context(|| format!("reading {}", self.record.display()))?;
        let object =
            fs::read(&self.object).with_context(|| format!("reading {}", self.object.display()))?;
        let differences = Canonical::parse(&object)?.differences(&Canonical::parse(rebuilt)?);
        if recorded == record && object == rebuilt {
            println!("the BPF object is what the source says, byte for byte");
        } else if recorded != record && differences.is_empty() {
            println!("the BPF object is what the source says, instruction for instruction");
            println!("checked in:\n{recorded}here:\n{record}");
        } else {
            for difference in &differences {
                eprintln!("{difference}");
            }
            bail!("the BPF object is not what the source says: `cargo xtask bpf build` and commit");
        }
        Ok(())
    }
}

/// Builds the programs from source and returns the linked object.
fn compile(root: &Path, toolchain: &Toolchain) -> Result<Vec<u8>> {
    let target_dir = root.join("target/bpf");
    let mut cargo = process::Command::new(&toolchain.cargo);
    cargo
        .current_dir(root)
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            "memwatch-ebpf",
            "--bin",
            BIN,
        ])
        .args([
            "--features",
            "bpf",
            "--target",
            TARGET,
            "-Z",
            "build-std=core",
            "--target-dir",
        ])
        .arg(&target_dir)
        .env("PATH", &toolchain.path)
        .env("RUSTC", &toolchain.rustc)
        // `-Z build-std` on a stable compiler: the BPF target has no prebuilt core.
        .env("RUSTC_BOOTSTRAP", "1")
        // The programs touch no registers, so one object does for every architecture; this only
        // keeps the bindings from being chosen by the machine that builds.
        .env("AYA_BPF_TARGET_ARCH", "x86_64")
        // Nothing of the builder's paths may get in.
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            toolchain.remap_paths(root).join("\x1f"),
        );
    // Set by the cargo that runs xtask, and meant for its own compiler.
    for inherited in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTFLAGS"] {
        cargo.env_remove(inherited);
    }
    let status = cargo
        .status()
        .with_context(|| format!("running {}", toolchain.cargo.display()))?;
    ensure!(status.success(), "the BPF programs do not build ({status})");
    let object = target_dir.join(TARGET).join("release").join(BIN);
    fs::read(&object).with_context(|| format!("reading {}", object.display()))
}
