//! memwatch's chores, one file per subcommand.

use clap::Parser;

mod bpf;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "memwatch's chores")]
enum Chore {
    /// The BPF object that is checked in: make it, prove it.
    #[command(subcommand)]
    Bpf(bpf::Command),
}

fn main() -> anyhow::Result<()> {
    match Chore::parse() {
        Chore::Bpf(command) => command.run(),
    }
}
