//! memwatch's chores, run as `cargo xtask CHORE`. This file owns their list; each has its own.

mod bench;
mod bpf;
mod browser;
mod collectors;
mod demo;
mod dist;
mod fuzz;
mod machine;
mod packages;
mod pytests;
mod python;
mod soak;
mod test;
mod vm;
mod wheel;
mod workspace;

use clap::Parser;

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "memwatch's chores")]
enum Chore {
    /// The BPF object that is checked in: make it, prove it.
    #[command(subcommand)]
    Bpf(bpf::Command),
    /// Show memwatch at work: a real pytest run, a real hog, a real kill.
    Demo,
    /// Run every test, on the real kernel too.
    Test,
    /// Make the Pythons that tests run, and print what tests that are run by hand need to find them.
    Pythons,
    /// Run hogs and innocents under memwatch, many times each, and count.
    Soak(soak::Args),
    /// Measure what memwatch costs and how fast it is, and print it beside the goals.
    Bench(bench::Args),
    /// Give made-up input to every parser that reads what others wrote.
    Fuzz(fuzz::Args),
    /// Make the Debian package, and the wheel of the plugin for pytest.
    Dist,
    /// Run scenarios on the kernels that users have, in virtual machines.
    Vm(vm::Args),
}

fn main() -> anyhow::Result<()> {
    match Chore::parse() {
        Chore::Bpf(command) => command.run(),
        Chore::Demo => demo::run(),
        Chore::Test => test::run(),
        Chore::Pythons => test::print_environment(),
        Chore::Soak(args) => soak::run(&args),
        Chore::Bench(args) => bench::run(&args),
        Chore::Fuzz(args) => fuzz::run(&args),
        Chore::Dist => dist::run(),
        Chore::Vm(args) => vm::run(&args),
    }
}
